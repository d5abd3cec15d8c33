//! Loads the settings: the built-in defaults, overridden by a file, overridden by the environment.

use std::ffi::OsString;
use std::path::Path;

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Profile};

use super::{BadConfig, Config};

/// The built-in defaults.
pub const DEFAULT: &str = include_str!("../../config/default.toml");
/// The prefix of environment variables that override settings.
pub const ENV_PREFIX: &str = "OPTIO_WEBHOOKS__";

/// Settings that are free text. The value of their environment variable is taken exactly as it is. The values of all
/// other settings are parsed as TOML, and a bare word there is a duration, an address or the name of an option.
const TEXTS: [&str; 22] = [
    "kafka.brokers",
    "kafka.topic",
    "kafka.group",
    "redis.url",
    "redis.prefix",
    "redis.ca_file",
    "redis.client_certificate_file",
    "redis.client_key_file",
    "redis.sentinel_username",
    "redis.sentinel_password",
    "traces.endpoint",
    "traces.headers",
    "secrets.keys",
    "secrets.keys_file",
    "admin.token",
    "admin.base_path",
    "admin.public_url",
    "webhooks.public_url",
    "delivery.proxy",
    "delivery.ca_file",
    "delivery.client_certificate_file",
    "delivery.client_key_file",
];
/// Lists whose entries are secrets, or may contain one by mistake.
const LISTS: [&str; 3] = ["admin.tokens", "redis.sentinels", "redis.cluster_nodes"];
/// The prefix of the librdkafka properties, which are all free text.
const PROPERTIES: &str = "kafka.properties.";

/// Returns the environment variable that sets `key` (`section.key`).
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

fn is_text(key: &str) -> bool {
    TEXTS.contains(&key) || key.starts_with(PROPERTIES)
}

impl Config {
    /// Loads the defaults, then `file`, then the environment, and checks the bounds of all settings.
    ///
    /// # Errors
    /// [`BadConfig`] names the keys that can't be read, or else all keys that are out of bounds. It never contains a
    /// value that may be secret.
    pub fn load(file: Option<&Path>) -> Result<Self, BadConfig> {
        let mut figment = Figment::from(Toml::string(DEFAULT));
        if let Some(path) = file {
            figment = figment.merge(Toml::string(&read(path)?));
        }
        for (key, value) in environment(std::env::vars_os())? {
            figment = set(figment, &key, &value);
        }
        extract(&figment)
    }

    /// Returns the built-in defaults.
    #[must_use]
    pub fn built_in() -> Self {
        Figment::from(Toml::string(DEFAULT)).extract().expect("a test reads the built-in defaults")
    }

    /// Returns the defaults with other values for some keys (`section.key`). The values are written as in environment
    /// variables.
    ///
    /// # Errors
    /// [`BadConfig`], as for [`Config::load`].
    pub fn with<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BadConfig> {
        let defaults = Figment::from(Toml::string(DEFAULT));
        extract(&values.into_iter().fold(defaults, |figment, (key, value)| set(figment, key, value)))
    }
}

/// Reads a TOML file and returns its text. An error gives the number of the bad line but not its text, which may
/// contain a secret.
fn read(path: &Path) -> Result<String, BadConfig> {
    let bad = |problem: String| BadConfig(format!("--config {}: {problem}", path.display()));
    if !path.is_file() {
        return Err(bad("no such file; a TOML file is expected".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| bad(format!("can't be read: {error}")))?;
    match toml::from_str::<toml::Table>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.bytes().filter(|byte| *byte == b'\n').count() + 1);
            Err(bad(format!("line {line} isn't valid TOML; lines look like key = \"text\", key = 5 or [section]")))
        }
    }
}

/// Picks the settings out of environment variables and sorts them by key.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, BadConfig> {
    let mut settings = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(prefix) = name.get(..ENV_PREFIX.len()) else { continue };
        if !prefix.eq_ignore_ascii_case(ENV_PREFIX) {
            continue;
        }
        let Ok(value) = value.into_string() else {
            return Err(BadConfig(format!("{name} isn't UTF-8")));
        };
        settings.push((name[ENV_PREFIX.len()..].to_lowercase().replace("__", "."), value));
    }
    settings.sort();
    Ok(settings)
}

/// Overrides one setting. Free text is taken exactly as it is, whatever it looks like.
fn set(figment: Figment, key: &str, value: &str) -> Figment {
    let value = if is_text(key) { Value::from(value) } else { value.parse().unwrap_or_else(|never| match never {}) };
    figment.merge(SingleSetting { key: key.to_owned(), value })
}

/// A provider of one setting. Errors about the setting name its environment variable.
struct SingleSetting {
    key: String,
    value: Value,
}

impl figment::Provider for SingleSetting {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(format!("environment variable {}", variable(&self.key)))
    }

    fn data(&self) -> Result<figment::value::Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(&self.key, self.value.clone());
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Profile::Default.collect(dict))
    }
}

fn extract(figment: &Figment) -> Result<Config, BadConfig> {
    let config: Config = figment.extract().map_err(|error| BadConfig(describe(error)))?;
    config.check()?;
    Ok(config)
}

/// Describes each key that can't be read, with the expected value and its source. The actual value is shown only for
/// known settings that aren't free text, because any other value may be a misplaced secret.
fn describe(errors: figment::Error) -> String {
    let line = |error: figment::Error| {
        let key = error.path.join(".").to_lowercase();
        let source = error.metadata.as_ref().map_or("", |metadata| &metadata.name);
        let problem = match &error.kind {
            Kind::InvalidType(..) | Kind::InvalidValue(..) | Kind::Message(_) if !may_be_shown(&key) => {
                let expected = match &error.kind {
                    Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => expected.clone(),
                    _ => "another value".to_owned(),
                };
                format!("the value can't be read; expected {expected}")
            }
            kind => kind.to_string(),
        };
        format!("{key}: {problem} (in {source}); `optio-webhooks config show --default` shows every key")
    };
    errors.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Whether the value of `key` may be shown: the key is a known setting and isn't free text.
fn may_be_shown(key: &str) -> bool {
    let defaults: toml::Table = toml::from_str(DEFAULT).expect("a test reads the built-in defaults");
    let mut value = Some(&toml::Value::Table(defaults)).cloned();
    for part in key.split('.') {
        // A number is the position in a list, and stands for the list.
        let is_position = part.parse::<usize>().is_ok() && value.as_ref().is_some_and(toml::Value::is_array);
        value = if is_position { value } else { value.and_then(|value| value.get(part).cloned()) };
    }
    // Something else in the place of these lists may be a token, or an address with a password.
    let is_sensitive_list = LISTS.iter().any(|list| key.starts_with(list));
    !is_text(key) && !is_sensitive_list && value.is_some_and(|value| !value.is_table())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    /// Texts that would change if they were parsed as TOML.
    const VERBATIM: [&str; 18] = [
        "00123456",
        "+5551234",
        "1.50",
        "\"quoted\"",
        "'quoted'",
        "[abc]",
        "true",
        "{a=1}",
        " spaces ",
        "päß wörd 🔑",
        "1e3",
        "0x10",
        "1_000",
        "-0",
        "a=b",
        "[\"a\",",
        "",
        "\\n#",
    ];

    #[test]
    fn a_text_from_the_environment_is_taken_exactly_as_it_is() {
        for value in VERBATIM {
            // A token needs 16 characters, so the text is repeated.
            let token = value.repeat(16);
            let config =
                Config::with([("admin.token", token.as_str()), ("kafka.properties.sasl_password", value)]).unwrap();
            assert_eq!(config.admin.token.expose(), token);
            assert_eq!(config.kafka.properties["sasl.password"].expose(), value);
            assert_eq!(Config::with([("redis.prefix", value)]).unwrap().redis.prefix, value);
        }
        for name in ["007", "1.50", "true", "1e3"] {
            assert_eq!(Config::with([("kafka.topic", name)]).unwrap().kafka.topic, name);
            assert_eq!(Config::with([("kafka.group", name)]).unwrap().kafka.group, name);
        }
    }

    #[test]
    fn values_of_settings_that_are_not_free_text_are_parsed() {
        let config = Config::with([
            ("delivery.timeout", "5s"),
            ("delivery.attempts_max", "3"),
            ("delivery.allow_http", "true"),
            ("delivery.allow_networks", r#"["127.0.0.0/8"]"#),
            ("delivery.retry.jitter", "0.5"),
            ("admin.listen", "127.0.0.1:9"),
            ("delivery.ordering", "none"),
        ])
        .unwrap();
        assert_eq!((config.delivery.attempts_max, config.delivery.allow_networks.len()), (3, 1));
    }

    #[test]
    fn an_entry_of_a_list_that_is_refused_is_shown_with_what_is_allowed() {
        for (key, entry, words) in [
            (
                "delivery.nat64_prefixes",
                "2001:db8::/33",
                "has the length 33; a NAT64 prefix has the length 32, 40, 48, 56, 64 or 96",
            ),
            ("delivery.nat64_prefixes", "10.0.0.0/8", "isn't an IPv6 network; write a NAT64 prefix such as"),
            ("delivery.allow_ports", "ssh", "expected a port from 1 to 65535 or a range such as \"1024-65535\""),
            ("delivery.deny_networks", "10.0.0.0/33", "string \"10.0.0.0/33\", expected a network such as"),
        ] {
            let error = Config::with([(key, format!("[\"{entry}\"]").as_str())]).unwrap_err().0;
            assert!(error.starts_with(key) && error.contains(words), "{error}");
        }
        let error = Config::with([("admin.tokens", "[\"hunter2\"]")]).unwrap_err().0;
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn every_setting_is_either_free_text_or_has_a_checkable_form() {
        let defaults: toml::Table = toml::from_str(DEFAULT).unwrap();
        let checked = ["admin.listen", "delivery.ordering", "kafka.offsets_lost"];
        let mut remaining: Vec<(String, toml::Value)> = defaults.into_iter().collect();
        while let Some((key, value)) = remaining.pop() {
            match value {
                toml::Value::Table(table) => {
                    remaining.extend(table.into_iter().map(|(name, v)| (format!("{key}.{name}"), v)))
                }
                toml::Value::String(text) => {
                    let is_checked = checked.contains(&key.as_str()) || humantime::parse_duration(&text).is_ok();
                    assert!(is_text(&key) != is_checked, "{key}: add it to TEXTS, or to `checked` in this test");
                }
                _ => assert!(!is_text(&key), "{key}"),
            }
        }
    }

    #[test]
    fn a_variable_that_is_not_utf_8_is_named() {
        let name = OsString::from("OPTIO_WEBHOOKS__ADMIN__TOKEN");
        let error = environment([(name, OsString::from_vec(vec![0xff]))].into_iter()).unwrap_err();
        assert!(error.0.starts_with("OPTIO_WEBHOOKS__ADMIN__TOKEN isn't UTF-8"), "{error}");
        let others = [("optio_webhooks__Kafka__Topic", "a"), ("HOME", "/"), ("OPTIO", "")];
        let others = others.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        assert_eq!(environment(others.into_iter()).unwrap(), [("kafka.topic".to_owned(), "a".to_owned())]);
    }
}
