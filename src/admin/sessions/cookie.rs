//! The cookie that holds a session.

use axum::http::{HeaderMap, header};
use axum_extra::extract::cookie::{Cookie, SameSite};

/// The name of the cookie.
pub const COOKIE: &str = "optio_webhooks_session";

/// The most cookies of this name that are looked at.
const COOKIES_MAX: usize = 8;

/// The values of all cookies of this name, in the order of the request. There may be several, for example if another server
/// on the same host has one for a shorter path.
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = pairs.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value).take(COOKIES_MAX)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cookie_of_the_name_is_looked_at() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, format!("a=1; {COOKIE}=x;{COOKIE}=y=z").parse().unwrap());
        headers.append(header::COOKIE, format!("{COOKIE}2=n; {COOKIE}=w").parse().unwrap());
        assert_eq!(cookies(&headers).collect::<Vec<_>>(), ["x", "y=z", "w"]);
    }
}
