//! `[admin]`: who may use the admin server, under which names, and how much of it.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{BadConfig, masked};
use crate::secret::Secret;

/// `[admin]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub listen: SocketAddr,
    pub hosts: Vec<String>,
    pub base_path: String,
    pub public_url: String,
    pub trusted_proxies: Vec<IpNet>,
    #[serde(serialize_with = "masked::secret")]
    pub token: Secret,
    pub tokens: Vec<Token>,
    #[serde(with = "humantime_serde")]
    pub session_max: Duration,
    #[serde(with = "humantime_serde")]
    pub stream_max: Duration,
    pub body_max: usize,
    pub connections_max: usize,
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    pub audit_entries_max: usize,
}

/// An entry of `admin.tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub name: String,
    #[serde(serialize_with = "masked::secret")]
    pub token: Secret,
    pub role: Role,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It may look at everything.
    Read,
    /// It may change everything.
    Change,
}

/// The name of `admin.token`.
pub const ADMIN: &str = "admin";
/// The fewest characters of a token.
const TOKEN_MIN: usize = 16;
/// The most characters of a token's name.
const NAME_MAX: usize = 64;
/// The most entries of each list.
const ENTRIES_MAX: usize = 100;
/// The most characters of a host.
const HOST_MAX: usize = 255;

impl Admin {
    /// Returns every token that signs in, with its name and role.
    #[must_use]
    pub fn all_tokens(&self) -> Vec<Token> {
        let admin = Token { name: ADMIN.to_owned(), token: self.token.clone(), role: Role::Change };
        let admin = Some(admin).filter(|admin| !admin.token.is_empty());
        admin.into_iter().chain(self.tokens.iter().cloned()).collect()
    }

    /// Refuses to serve the page and the API to other machines without a token.
    ///
    /// # Errors
    /// [`BadConfig`] if other machines can reach `admin.listen` and there is no token.
    pub fn check_is_guarded(&self) -> Result<(), BadConfig> {
        if self.listen.ip().to_canonical().is_loopback() || !self.all_tokens().is_empty() {
            return Ok(());
        }
        Err(BadConfig(format!(
            "admin.listen = {}: other machines can reach it, so a token is needed: set admin.token to at least {TOKEN_MIN} \
             characters, listen on 127.0.0.1, or run with --only worker",
            self.listen
        )))
    }

    /// The lines about values that aren't allowed. They never contain a token.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut bad = Vec::new();
        if !self.token.is_empty() && is_short(&self.token) {
            bad.push(format!("admin.token: must have {TOKEN_MIN} characters or more, or be empty for none"));
        }
        for (key, entries) in [
            ("admin.tokens", self.tokens.len()),
            ("admin.hosts", self.hosts.len()),
            ("admin.trusted_proxies", self.trusted_proxies.len()),
        ] {
            if entries > ENTRIES_MAX {
                bad.push(format!("{key}: has {entries} entries; must be at most {ENTRIES_MAX}"));
            }
        }
        for (at, entry) in self.tokens.iter().enumerate() {
            bad.extend(entry.problem(at));
        }
        let all = self.all_tokens();
        for (at, one) in all.iter().enumerate() {
            for other in &all[..at] {
                if one.name == other.name {
                    bad.push(format!(
                        "admin.tokens: two tokens are named {:?}; each needs its own name, and {ADMIN:?} is the name of \
                         admin.token",
                        one.name
                    ));
                }
                if one.token == other.token {
                    bad.push(format!(
                        "admin.tokens: {:?} and {:?} have the same token; each needs its own",
                        other.name, one.name
                    ));
                }
            }
        }
        bad.extend(self.hosts.iter().filter(|host| !is_host(host)).map(|host| {
            format!(
                "admin.hosts: {host:?} isn't allowed; entries look like webhooks.example.com, 10.0.0.5:8080 or [::1]"
            )
        }));
        bad
    }
}

impl Token {
    fn problem(&self, at: usize) -> Option<String> {
        let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > NAME_MAX || !self.name.chars().all(is_name_char) {
            return Some(format!(
                "admin.tokens: the name of entry {} isn't allowed; it must be 1 to {NAME_MAX} characters from a-z A-Z 0-9 _ -",
                at + 1
            ));
        }
        let problem = format!("admin.tokens: the token {:?} must have {TOKEN_MIN} characters or more", self.name);
        is_short(&self.token).then_some(problem)
    }
}

/// Spaces around a token are lost in a header, so they don't count.
fn is_short(token: &Secret) -> bool {
    token.expose().trim().chars().count() < TOKEN_MIN
}

/// Whether the text is a host, with or without a port.
fn is_host(text: &str) -> bool {
    let is_known_char = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    let authority: Option<axum::http::uri::Authority> = text.parse().ok();
    text.len() <= HOST_MAX
        && text.chars().all(is_known_char)
        && authority.is_some_and(|authority| {
            let port = &text[authority.host().len()..];
            !authority.host().is_empty() && (port.is_empty() || authority.port_u16().is_some())
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const LONG: &str = "0123456789abcdef";

    fn with(tokens: &str) -> Result<Config, BadConfig> {
        Config::with([("admin.token", "the admin's own token"), ("admin.tokens", tokens)])
    }

    #[test]
    fn named_tokens_are_read_from_the_environment_as_toml() {
        let config = with(&format!(r#"[{{name="ci", token="{LONG}", role="read"}}]"#)).unwrap();
        let all = config.admin.all_tokens();
        let names: Vec<_> = all.iter().map(|token| (token.name.as_str(), token.role)).collect();
        assert_eq!(names, [("admin", Role::Change), ("ci", Role::Read)]);
        assert!(!toml::to_string(&config).unwrap().contains(LONG));
        assert!(!format!("{config:?}").contains(LONG));
    }

    #[test]
    fn a_token_that_is_short_or_not_its_own_is_refused_without_being_shown() {
        for (tokens, word) in [
            (r#"[{name="ci", token="hunter2hunter2", role="read"}]"#, "16 characters"),
            (r#"[{name="", token="hunter2hunter2hunter2", role="read"}]"#, "name of entry 1"),
            (r#"[{name="a.b", token="hunter2hunter2hunter2", role="read"}]"#, "name of entry 1"),
            (r#"[{name="admin", token="hunter2hunter2hunter2", role="read"}]"#, "named \"admin\""),
            (r#"[{name="ci", token="the admin's own token", role="read"}]"#, "same token"),
            (r#"[{name="ci", token="hunter2hunter2hunter2", role="write"}]"#, "role"),
            (r#"[{name="ci", token="hunter2hunter2hunter2"}]"#, "role"),
            (r#"[{name="ci", secret="hunter2hunter2hunter2", role="read"}]"#, "secret"),
            ("hunter2hunter2hunter2", "admin.tokens"),
            (r#"["hunter2hunter2hunter2"]"#, "admin.tokens"),
        ] {
            let error = with(tokens).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("hunter2") && !error.contains("own token"), "{error}");
        }
        let error = Config::with([("admin.token", "hunter2")]).unwrap_err().to_string();
        assert!(error.contains("16 characters") && !error.contains("hunter2"), "{error}");
        assert!(Config::with([("admin.token", "           hunter2        ")]).is_err());
    }

    #[test]
    fn an_address_that_other_machines_reach_needs_a_token() {
        for (listen, is_loopback) in [
            ("127.0.0.1:1", true),
            ("127.8.9.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
        ] {
            let open = Config::with([("admin.listen", listen)]).unwrap();
            assert_eq!(open.admin.check_is_guarded().is_ok(), is_loopback, "{listen}");
            let tokens = format!(r#"[{{name="ci", token="{LONG}", role="read"}}]"#);
            let guarded = Config::with([("admin.listen", listen), ("admin.tokens", &tokens)]).unwrap();
            guarded.admin.check_is_guarded().unwrap();
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in ["localhost", "webhooks.example.com", "webhooks.example.com:8443", "10.0.0.1", "[::1]", "[::1]:80"]
        {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "http://a", "a/b", "a:b", "a:", "a:99999", "*.example.com", "a b", "::1", "me@a"] {
            assert!(!is_host(host), "{host}");
        }
    }
}
