//! Where settings come from: the built-in defaults, then a file, then the environment.

use std::ffi::OsString;
use std::path::Path;

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Profile};

use super::{BadConfig, Config};

/// The defaults, as shipped.
pub const DEFAULT: &str = include_str!("../../config/default.toml");
/// Environment variables that override settings begin with this.
pub const ENV_PREFIX: &str = "OPTIO_WEBHOOKS__";

/// Settings that are a text of any kind: an environment variable's value is taken as it stands. All others are read as
/// TOML, or as a duration, an address or a name.
const TEXTS: [&str; 7] =
    ["kafka.brokers", "kafka.topic", "kafka.group", "redis.url", "redis.prefix", "admin.token", "delivery.proxy"];
/// Below this every setting is a text.
const PROPERTIES: &str = "kafka.properties.";

/// The environment variable that sets `key` (`section.key`).
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

fn is_text(key: &str) -> bool {
    TEXTS.contains(&key) || key.starts_with(PROPERTIES)
}

impl Config {
    /// Defaults, then `file`, then the environment; checked.
    ///
    /// # Errors
    /// [`BadConfig`] names the first key that can't be read, or all keys that are out of bounds. No value of a setting
    /// that may be secret is in it.
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

    /// The defaults alone.
    #[must_use]
    pub fn built_in() -> Self {
        Figment::from(Toml::string(DEFAULT)).extract().expect("the built-in defaults are read by a test")
    }

    /// The defaults with other values for some keys (`section.key`), written as in environment variables.
    ///
    /// # Errors
    /// [`BadConfig`] as [`Config::load`].
    pub fn with<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BadConfig> {
        let defaults = Figment::from(Toml::string(DEFAULT));
        extract(&values.into_iter().fold(defaults, |figment, (key, value)| set(figment, key, value)))
    }
}

/// A file's text, if that is TOML. What is wrong with it is said without the line: that may hold a secret.
fn read(path: &Path) -> Result<String, BadConfig> {
    let bad = |problem: String| BadConfig(format!("--config {}: {problem}", path.display()));
    if !path.is_file() {
        return Err(bad("there is no such file; a TOML file is expected".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| bad(format!("can't be read: {error}")))?;
    match toml::from_str::<toml::Table>(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(1, |before| before.bytes().filter(|byte| *byte == b'\n').count() + 1);
            Err(bad(format!("line {line} isn't TOML; allowed are lines like key = \"text\", key = 5 and [section]")))
        }
    }
}

/// The settings among environment variables, in the order of their names.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, BadConfig> {
    let mut settings = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(prefix) = name.get(..ENV_PREFIX.len()) else { continue };
        if !prefix.eq_ignore_ascii_case(ENV_PREFIX) {
            continue;
        }
        let Ok(value) = value.into_string() else {
            return Err(BadConfig(format!("{name} isn't UTF-8, so that it can't be used as it stands")));
        };
        settings.push((name[ENV_PREFIX.len()..].to_lowercase().replace("__", "."), value));
    }
    settings.sort();
    Ok(settings)
}

/// One more setting. A text is taken as it stands, whatever it looks like.
fn set(figment: Figment, key: &str, value: &str) -> Figment {
    let value = if is_text(key) { Value::from(value) } else { value.parse().unwrap_or_else(|never| match never {}) };
    figment.merge(One { key: key.to_owned(), value })
}

/// A single setting as a provider, that knows its name.
struct One {
    key: String,
    value: Value,
}

impl figment::Provider for One {
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
    let config: Config = figment.extract().map_err(|error| BadConfig(unreadable(error)))?;
    config.check()?;
    Ok(config)
}

/// Each key that can't be read: what is expected, and where it comes from. What it holds is said only of settings that
/// are no text: anything else may be a secret in the wrong place.
fn unreadable(errors: figment::Error) -> String {
    let line = |error: figment::Error| {
        let key = error.path.join(".").to_lowercase();
        let source = error.metadata.as_ref().map_or("", |metadata| &metadata.name);
        let problem = match &error.kind {
            Kind::InvalidType(..) | Kind::InvalidValue(..) | Kind::Message(_) if !may_be_said(&key) => {
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

/// Whether a key is a setting whose value is no text.
fn may_be_said(key: &str) -> bool {
    let defaults: toml::Table = toml::from_str(DEFAULT).expect("the built-in defaults are read by a test");
    let mut at = Some(&toml::Value::Table(defaults)).cloned();
    for part in key.split('.') {
        at = at.and_then(|value| value.get(part).cloned());
    }
    !is_text(key) && at.is_some_and(|value| !value.is_table())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    /// What would become something else if it was read as TOML.
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
    fn a_text_from_the_environment_is_taken_as_it_stands() {
        for value in VERBATIM {
            let config = Config::with([("admin.token", value), ("kafka.properties.sasl_password", value)]).unwrap();
            assert_eq!(config.admin.token, value);
            assert_eq!(config.kafka.properties["sasl.password"], value);
            assert_eq!(Config::with([("redis.prefix", value)]).unwrap().redis.prefix, value);
        }
        for name in ["007", "1.50", "true", "1e3"] {
            assert_eq!(Config::with([("kafka.topic", name)]).unwrap().kafka.topic, name);
            assert_eq!(Config::with([("kafka.group", name)]).unwrap().kafka.group, name);
        }
    }

    #[test]
    fn what_is_no_text_is_read_as_before() {
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
    fn every_setting_is_either_a_text_or_something_that_can_be_checked() {
        let defaults: toml::Table = toml::from_str(DEFAULT).unwrap();
        let checked = ["admin.listen", "delivery.ordering", "kafka.offsets_lost"];
        let mut open: Vec<(String, toml::Value)> = defaults.into_iter().collect();
        while let Some((key, value)) = open.pop() {
            match value {
                toml::Value::Table(table) => {
                    open.extend(table.into_iter().map(|(name, v)| (format!("{key}.{name}"), v)))
                }
                toml::Value::String(text) => {
                    let is_checked = checked.contains(&key.as_str()) || humantime::parse_duration(&text).is_ok();
                    assert!(is_text(&key) != is_checked, "{key}: decide whether its value is taken as it stands");
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
