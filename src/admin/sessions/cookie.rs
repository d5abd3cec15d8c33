//! The cookie that holds a session.

use axum::http::HeaderMap;
use axum_extra::extract::cookie::{Cookie, SameSite};

/// The name of the cookie.
pub const COOKIE: &str = "optio_webhooks_session";

/// The cookie with a session.
pub fn cookie(value: String, secure: bool) -> Cookie<'static> {
    // Lax, so that a link from another site to a page works. Every change is a POST, and Lax withholds the cookie from
    // a POST of another site.
    Cookie::build((COOKIE, value)).path("/").http_only(true).secure(secure).same_site(SameSite::Lax).build()
}

/// A cookie that removes the one with a session.
pub fn removal() -> Cookie<'static> {
    let mut cookie = cookie(String::new(), false);
    cookie.make_removal();
    cookie
}

/// Whether the browser's connection is encrypted, according to the proxy in front. A client that makes this up only
/// withholds its own cookie from plain connections, so any proxy is believed.
pub fn is_secure(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes() == b"https")
}
