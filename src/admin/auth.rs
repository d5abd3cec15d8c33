//! Who may come in: the API by its bearer token, people by a session in a cookie.
//!
//! A session is a value that only holders of the token could have made: until when it lasts, a number, and an HMAC
//! of both. So every admin server with the same token knows it, and nothing is stored. Forms carry an HMAC of the
//! session: a page of another origin can't know it.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::pages::Refusal;
use super::{Problem, Shared};
use crate::clock::now_ms;
use crate::config;

const COOKIE: &str = "optio_webhooks_session";
/// Where people sign in.
pub const SIGN_IN: &str = "/sign-in";

/// Knows the token.
#[derive(Clone)]
pub struct Guard {
    token: String,
    session_max_s: i64,
}

/// A person who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What forms must carry.
    pub csrf: String,
}

impl Guard {
    /// With `admin.token`.
    pub fn new(settings: &config::Admin) -> Self {
        Self { token: settings.token.clone(), session_max_s: settings.session_max.as_secs() as i64 }
    }

    /// Whether it is the token; in constant time. Never while none is set.
    pub fn knows(&self, token: &str) -> bool {
        // Of equal lengths whatever was given: the time tells nothing of the token's.
        let (ours, theirs) = (Sha256::digest(self.token.as_bytes()), Sha256::digest(token.as_bytes()));
        !self.token.is_empty() && bool::from(ours.ct_eq(&theirs))
    }

    /// Whether there is a token at all.
    pub fn is_set(&self) -> bool {
        !self.token.is_empty()
    }

    /// A cookie for whoever knew the token.
    pub fn sign_in(&self, now_s: i64, secure: bool) -> Cookie<'static> {
        let claims = format!("{}.{}", now_s + self.session_max_s, uuid::Uuid::new_v4().simple());
        let value = format!("{claims}.{}", self.proof("session", &claims));
        cookie(value, secure)
    }

    /// A cookie that ends the session.
    pub fn sign_out() -> Cookie<'static> {
        let mut cookie = cookie(String::new(), false);
        cookie.make_removal();
        cookie
    }

    /// The session of a cookie's value, while it lasts.
    pub fn session(&self, value: &str, now_s: i64) -> Option<Session> {
        let (claims, proof) = value.rsplit_once('.')?;
        let until_s: i64 = claims.split('.').next()?.parse().ok()?;
        let is_ours = self.is_set() && bool::from(self.proof("session", claims).as_bytes().ct_eq(proof.as_bytes()));
        (is_ours && now_s < until_s).then(|| Session { csrf: self.proof("csrf", value) })
    }

    fn proof(&self, purpose: &str, text: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(self.token.as_bytes()).expect("HMAC takes a key of any length");
        hex::encode(mac.chain_update(purpose).chain_update(":").chain_update(text).finalize().into_bytes())
    }
}

impl Session {
    /// Whether a form comes from a page of ours; in constant time.
    pub fn sent(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }
}

fn cookie(value: String, secure: bool) -> Cookie<'static> {
    // Lax, so that a link from elsewhere to a page works; what changes something is a POST, which Lax doesn't pass.
    Cookie::build((COOKIE, value)).path("/").http_only(true).secure(secure).same_site(SameSite::Lax).build()
}

/// Whether the browser's connection is encrypted, as a proxy in front says.
pub fn is_secure(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https")
}

/// Seconds since 1970.
pub fn now_s() -> i64 {
    now_ms() / 1_000
}

/// Lets a request through that has the bearer token.
pub async fn bearer(State(admin): State<Shared>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let token = authorization
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if token.is_some_and(|(_, token)| admin.guard.knows(token) || admin.guard.knows(token.trim())) {
        return next.run(request).await;
    }
    let sentence = match (admin.guard.is_set(), token) {
        (false, _) => "admin.token is not set: set it to use the API and the page",
        (true, None) => "a bearer token is needed: Authorization: Bearer <admin.token>",
        (true, Some(_)) => "this isn't the token of admin.token",
    };
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (challenge, Problem::new(StatusCode::UNAUTHORIZED, sentence)).into_response()
}

/// Lets a person through who signed in; others are asked to.
pub async fn signed_in(State(admin): State<Shared>, jar: CookieJar, mut request: Request, next: Next) -> Response {
    let session = jar.get(COOKIE).and_then(|cookie| admin.guard.session(cookie.value(), now_s()));
    if let Some(session) = session {
        request.extensions_mut().insert(session);
        return next.run(request).await;
    }
    if request.method() == axum::http::Method::GET {
        let wanted = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let query = serde_html_form::to_string([("next", wanted)]).unwrap_or_default();
        return Redirect::to(&format!("{SIGN_IN}?{query}")).into_response();
    }
    let problem =
        Problem::new(StatusCode::UNAUTHORIZED, "You are signed out: sign in and try again. Nothing was changed.");
    Refusal(problem).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn guard(token: &str) -> Guard {
        let mut settings = Config::built_in().admin;
        settings.token = token.to_owned();
        Guard::new(&settings)
    }

    #[test]
    fn a_session_lasts_its_time_and_only_with_the_token_that_made_it() {
        let guard_of_it = guard("t0ken");
        let cookie = guard_of_it.sign_in(1_000, true);
        let last = 1_000 + 12 * 3_600 - 1;
        assert!(guard_of_it.session(cookie.value(), last).is_some());
        assert_eq!(guard_of_it.session(cookie.value(), last + 1), None);
        assert_eq!(guard("another").session(cookie.value(), 1_000), None);
        let longer = cookie.value().replacen("44200", "99999", 1);
        assert_ne!(longer, cookie.value());
        assert_eq!(guard_of_it.session(&longer, 1_000), None, "a longer one can't be made up");
    }

    #[test]
    fn a_form_is_taken_only_from_a_page_of_the_same_session() {
        let guard = guard("t0ken");
        let session = |cookie: &Cookie<'_>| guard.session(cookie.value(), 0).unwrap();
        let (one, other) = (session(&guard.sign_in(0, false)), session(&guard.sign_in(0, false)));
        assert!(one.sent(&one.csrf.clone()));
        assert!(!one.sent(&other.csrf) && !one.sent(""));
    }

    #[test]
    fn without_a_token_nobody_comes_in() {
        let guard = guard("");
        assert!(!guard.knows(""));
        let cookie = guard.sign_in(0, false);
        assert_eq!(guard.session(cookie.value(), 0), None);
    }
}
