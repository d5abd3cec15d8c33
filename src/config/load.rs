//! Where settings come from: the built-in defaults, then a file, then the environment.

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Toml};

use super::{BadConfig, Config};

/// The defaults, as shipped.
pub const DEFAULT: &str = include_str!("../../config/default.toml");
/// Environment variables that override settings begin with this.
pub const ENV_PREFIX: &str = "OPTIO_WEBHOOKS__";

/// The environment variable that sets `key` (`section.key`).
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

impl Config {
    /// Defaults, then `file`, then the environment; checked.
    ///
    /// # Errors
    /// [`BadConfig`] names the first key that can't be read, or all keys that are out of bounds.
    pub fn load(file: Option<&Path>) -> Result<Self, BadConfig> {
        let mut figment = Figment::from(Toml::string(DEFAULT));
        if let Some(path) = file {
            if !path.is_file() {
                return Err(BadConfig(format!(
                    "--config {}: there is no such file; a TOML file is expected",
                    path.display()
                )));
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        let config: Self = figment
            .merge(Env::prefixed(ENV_PREFIX).split("__"))
            .extract()
            .map_err(|error| BadConfig(unreadable(error)))?;
        config.check()?;
        Ok(config)
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
        let figment = values.into_iter().fold(defaults, |figment, (key, value)| {
            figment.merge((key, value.parse::<figment::value::Value>().unwrap_or_else(|never| match never {})))
        });
        let config: Self = figment.extract().map_err(|error| BadConfig(unreadable(error)))?;
        config.check()?;
        Ok(config)
    }
}

/// Each key that can't be read: what it holds, what is expected, where it comes from.
fn unreadable(errors: figment::Error) -> String {
    let line = |error: figment::Error| {
        let key = error.path.join(".").to_lowercase();
        let source = error.metadata.as_ref().map_or("", |metadata| &metadata.name);
        format!("{key}: {} (in {source}); `optio-webhooks config show --default` shows every key", error.kind)
    };
    errors.into_iter().map(line).collect::<Vec<_>>().join("\n")
}
