//! Who may use the admin server: a program with the bearer token, a person with a session in a cookie.
//!
//! A session is a value that only a holder of the token can make: the time at which it ends, a random number, and an
//! HMAC of both. Every admin server with the same token accepts it, and nothing is stored. Forms carry an HMAC of the
//! session, which a page of another origin can't know.

use axum::http::HeaderMap;
use axum_extra::extract::cookie::{Cookie, SameSite};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::clock::now_ms;
use crate::config;
use crate::secret::Secret;

/// The name of the session cookie.
pub const COOKIE: &str = "optio_webhooks_session";
/// The path of the page where people sign in.
pub const SIGN_IN: &str = "/sign-in";

/// Checks tokens and sessions against `admin.token`.
#[derive(Clone)]
pub struct Guard {
    token: Secret,
    session_max_s: i64,
}

/// A person who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The token that each form of this session must carry.
    pub csrf: String,
}

impl Guard {
    /// A guard with the `admin.token` of `settings`.
    pub fn new(settings: &config::Admin) -> Self {
        Self { token: settings.token.clone(), session_max_s: settings.session_max.as_secs() as i64 }
    }

    /// Whether `token` is `admin.token`, compared in constant time. Always false while none is set.
    pub fn accepts(&self, token: &str) -> bool {
        // The digests have equal lengths, so that the time of the comparison does not reveal the length of the token.
        let (ours, theirs) = (Sha256::digest(self.token.expose().as_bytes()), Sha256::digest(token.as_bytes()));
        !self.token.is_empty() && bool::from(ours.ct_eq(&theirs))
    }

    /// Whether `admin.token` is set.
    pub fn is_set(&self) -> bool {
        !self.token.is_empty()
    }

    /// The cookie of a new session. Call it only for a person who entered the token.
    pub fn sign_in(&self, now_s: i64, secure: bool) -> Cookie<'static> {
        let claims = format!("{}.{}", now_s + self.session_max_s, uuid::Uuid::new_v4().simple());
        let value = format!("{claims}.{}", self.mac("session", &claims));
        cookie(value, secure)
    }

    /// A cookie that ends the session.
    pub fn sign_out() -> Cookie<'static> {
        let mut cookie = cookie(String::new(), false);
        cookie.make_removal();
        cookie
    }

    /// The session that a cookie's `value` stands for; None if it has ended or was made with another token.
    pub fn session(&self, value: &str, now_s: i64) -> Option<Session> {
        let (claims, mac) = value.rsplit_once('.')?;
        let until_s: i64 = claims.split('.').next()?.parse().ok()?;
        let is_ours = self.is_set() && bool::from(self.mac("session", claims).as_bytes().ct_eq(mac.as_bytes()));
        (is_ours && now_s < until_s).then(|| Session { csrf: self.mac("csrf", value) })
    }

    fn mac(&self, purpose: &str, text: &str) -> String {
        let mac =
            Hmac::<Sha256>::new_from_slice(self.token.expose().as_bytes()).expect("HMAC takes a key of any length");
        hex::encode(mac.chain_update(purpose).chain_update(":").chain_update(text).finalize().into_bytes())
    }
}

impl Session {
    /// Whether `csrf` is the token of this session's forms, compared in constant time.
    pub fn accepts(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }
}

fn cookie(value: String, secure: bool) -> Cookie<'static> {
    // Lax, so that a link from another site to a page works. Every change is a POST, and Lax withholds the cookie from
    // a POST of another site.
    Cookie::build((COOKIE, value)).path("/").http_only(true).secure(secure).same_site(SameSite::Lax).build()
}

/// Whether the browser's connection is encrypted, according to the proxy in front.
pub fn is_secure(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https")
}

/// The current time in Unix seconds.
pub fn now_s() -> i64 {
    now_ms() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn guard(token: &str) -> Guard {
        let mut settings = Config::built_in().admin;
        settings.token = token.into();
        Guard::new(&settings)
    }

    #[test]
    fn a_session_ends_in_time_and_needs_the_token_that_made_it() {
        let own_guard = guard("t0ken");
        let cookie = own_guard.sign_in(1_000, true);
        let last = 1_000 + 12 * 3_600 - 1;
        assert!(own_guard.session(cookie.value(), last).is_some());
        assert_eq!(own_guard.session(cookie.value(), last + 1), None);
        assert_eq!(guard("another").session(cookie.value(), 1_000), None);
        let longer = cookie.value().replacen("44200", "99999", 1);
        assert_ne!(longer, cookie.value());
        assert_eq!(own_guard.session(&longer, 1_000), None, "a later end needs another HMAC");
    }

    #[test]
    fn a_form_is_taken_only_from_a_page_of_the_same_session() {
        let guard = guard("t0ken");
        let session = |cookie: &Cookie<'_>| guard.session(cookie.value(), 0).unwrap();
        let (one, other) = (session(&guard.sign_in(0, false)), session(&guard.sign_in(0, false)));
        assert!(one.accepts(&one.csrf.clone()));
        assert!(!one.accepts(&other.csrf) && !one.accepts(""));
    }

    #[test]
    fn without_a_configured_token_nobody_can_sign_in() {
        let guard = guard("");
        assert!(!guard.accepts(""));
        let cookie = guard.sign_in(0, false);
        assert_eq!(guard.session(cookie.value(), 0), None);
    }
}
