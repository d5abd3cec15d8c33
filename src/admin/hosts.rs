//! By which hosts the page and the API may be called.
//!
//! A page of another site can make a browser call this server under a name of that site, if the site's DNS then answers
//! with this server's address (DNS rebinding). The browser would take both for one site. Such requests carry the name
//! of the other site in `Host`.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::{Problem, Refusal};
use super::state::Shared;
use crate::config;

/// The most characters of a refused host that the answer repeats.
const SHOWN_MAX: usize = 100;

/// The hosts that are allowed.
pub struct Hosts(Vec<(String, Option<u16>)>);

impl Hosts {
    /// The hosts of `admin.hosts` and the address of `admin.listen`.
    pub fn new(settings: &config::Admin) -> Self {
        let mut all: Vec<_> = settings.hosts.iter().filter_map(|host| split(host)).collect();
        let listen = settings.listen.ip();
        if !listen.is_unspecified() {
            all.extend(split(&if listen.is_ipv6() { format!("[{listen}]") } else { listen.to_string() }));
        }
        Self(all)
    }

    /// Whether a request may name `host`.
    fn allows(&self, host: &str) -> bool {
        let Some((name, port)) = split(host) else { return false };
        self.0.iter().any(|(allowed, of_port)| *allowed == name && of_port.is_none_or(|of_port| port == Some(of_port)))
    }
}

/// The name in lower case without a dot at its end, and the port.
fn split(host: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = host.parse().ok()?;
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let is_plain = !name.is_empty() && !host.contains('@');
    is_plain.then(|| (name, authority.port_u16()))
}

/// Lets a request for an allowed host through.
pub async fn check(State(admin): State<Shared>, request: Request, next: Next) -> Response {
    // A request may name its host in its target, in a header, or in both. Whatever it names must be allowed.
    let target = request.uri().authority().map(Authority::as_str);
    let headers = request.headers().get_all(header::HOST).iter();
    let named: Vec<&str> = target.into_iter().chain(headers.map(|host| host.to_str().unwrap_or_default())).collect();
    let refused = named.iter().find(|host| !admin.hosts.allows(host));
    let problem = match (named.is_empty(), refused) {
        (false, None) => return next.run(request).await,
        (true, _) => "The request names no host.".to_owned(),
        (false, Some(host)) => {
            let host: String = host.chars().take(SHOWN_MAX).collect();
            format!("The host {host:?} is not allowed; admin.hosts lists the hosts by which this server is called.")
        }
    };
    let path = request.uri().path();
    let is_api = path.starts_with("/api/") || path == "/openapi.json";
    let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, problem);
    if is_api { problem.into_response() } else { Refusal(problem).into_response() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn only_named_hosts_and_the_listen_address_are_allowed() {
        let hosts = r#"["localhost", "Webhooks.example.com", "10.1.1.1:8443", "[::1]"]"#;
        let config = Config::with([("admin.hosts", hosts), ("admin.listen", "192.0.2.1:8080")]).unwrap();
        let hosts = Hosts::new(&config.admin);
        for host in [
            "localhost",
            "localhost:8080",
            "LOCALHOST.:1",
            "webhooks.example.com",
            "10.1.1.1:8443",
            "[::1]:8080",
            "192.0.2.1:8080",
            "192.0.2.1",
        ] {
            assert!(hosts.allows(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "10.1.1.1",
            "10.1.1.1:80",
            "me@localhost",
            "localhost@evil.example",
            "0.0.0.0",
            "127.0.0.1",
            "localhost/x",
        ] {
            assert!(!hosts.allows(host), "{host}");
        }
    }

    #[test]
    fn a_server_on_all_addresses_is_called_by_loopback_names() {
        let config = Config::with([("admin.listen", "0.0.0.0:8080")]).unwrap();
        let hosts = Hosts::new(&config.admin);
        assert!(["localhost:8080", "127.0.0.1:8080", "[::1]:8080"].iter().all(|host| hosts.allows(host)));
        assert!(!hosts.allows("0.0.0.0:8080"));
    }
}
