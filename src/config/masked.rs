//! Settings as they may be shown.

use super::Config;

/// Stands for every secret that is shown.
pub const MASK: &str = "••••••";

impl Config {
    /// The same with secrets masked, for showing.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut shown = self.clone();
        if !shown.admin.token.is_empty() {
            shown.admin.token = MASK.to_owned();
        }
        shown.redis.url = masked_url(&shown.redis.url);
        shown.delivery.proxy = masked_url(&shown.delivery.proxy);
        for (key, value) in &mut shown.kafka.properties {
            if ["password", "secret", ".pem", "sasl.jaas"].iter().any(|word| key.contains(word)) {
                MASK.clone_into(value);
            }
        }
        shown
    }
}

/// A URL without its password.
pub(super) fn masked_url(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return url.to_owned() };
    if parsed.password().is_none() {
        return url.to_owned();
    }
    match parsed.set_password(Some("xxxxxx")) {
        Ok(()) => parsed.to_string(),
        Err(()) => MASK.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_when_shown() {
        let mut config = Config::built_in();
        config.admin.token = "hunter2".into();
        config.redis.url = "redis://me:hunter2@redis:6379/".into();
        config.kafka.properties.insert("sasl.password".into(), "hunter2".into());
        assert!(!toml::to_string(&config.masked()).unwrap().contains("hunter2"));
    }
}
