//! Serves the page and the API below `admin.base_path`, behind a reverse proxy that shares its host with other services.
//!
//! The routes and the pages are written as if they were at the root. This layer puts the path before every link,
//! redirect and cookie of an answer. A proxy may take the path away from the requests or not.

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::{Redirect, Response};
use axum::routing::get;
use futures_util::StreamExt as _;

/// The attributes of the pages that hold an address of this server. Text that isn't ours can't contain one, because a
/// quotation mark in it is escaped.
const ATTRIBUTES: [&str; 5] = [" href=\"/", " action=\"/", " formaction=\"/", " src=\"/", " data-live=\"/"];
/// The page that people see first.
const START: &str = "/settings/webhooks";
/// The largest page, in bytes. No page of this server is nearly as large.
const PAGE_MAX: usize = 64 << 20;

/// Serves `routes` at the root and below `base`, which is empty or begins with a slash.
pub fn below(base: &str, routes: Router) -> Router {
    if base.is_empty() {
        return routes;
    }
    let prefix: &'static str = base.to_owned().leak();
    let routes = routes.layer(middleware::map_response(move |answer| moved(prefix, answer)));
    // A nested route for "/" answers to the path without a slash at its end. Some proxies add one.
    let start = Redirect::to(&format!("{base}{START}"));
    let with_slash = get(move || std::future::ready(start.clone()));
    Router::new().nest(base, routes.clone()).merge(routes).route(&format!("{base}/"), with_slash)
}

/// Puts `base` before the addresses in an answer.
async fn moved(base: &'static str, mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    if let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok())
        && location.starts_with('/')
        && let Ok(moved) = HeaderValue::from_str(&format!("{base}{location}"))
    {
        headers.insert(header::LOCATION, moved);
    }
    let cookies: Vec<HeaderValue> =
        headers.get_all(header::SET_COOKIE).iter().map(|cookie| scoped(base, cookie)).collect();
    headers.remove(header::SET_COOKIE);
    headers.extend(cookies.into_iter().map(|cookie| (header::SET_COOKIE, cookie)));
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("text/html") {
        headers.remove(header::CONTENT_LENGTH);
        let (parts, body) = answer.into_parts();
        let body = to_bytes(body, PAGE_MAX).await.unwrap_or_default();
        return Response::from_parts(parts, Body::from(linked(base, &body)));
    }
    if kind.starts_with("text/event-stream") {
        // Each frame has whole events, so no attribute is split.
        return answer
            .map(|body| Body::from_stream(body.into_data_stream().map(|part| part.map(|part| linked(base, &part)))));
    }
    answer
}

/// A cookie of this server for `base` alone.
fn scoped(base: &str, cookie: &HeaderValue) -> HeaderValue {
    let moved = cookie.to_str().ok().map(|text| text.replace("Path=/", &format!("Path={base}")));
    moved.and_then(|text| HeaderValue::from_str(&text).ok()).unwrap_or_else(|| cookie.clone())
}

fn linked(base: &str, html: &[u8]) -> Bytes {
    let mut html = String::from_utf8_lossy(html).into_owned();
    for attribute in ATTRIBUTES {
        let moved = format!("{}{base}/", attribute.trim_end_matches('/'));
        html = html.replace(attribute, &moved);
    }
    html.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_move_and_foreign_text_stays() {
        let page = maud::html! { a href="/status" { "href=\"/x" } input value="/settings"; a href="https://x/" {} };
        let moved = linked("/hooks", page.into_string().as_bytes());
        let text = String::from_utf8(moved.to_vec()).unwrap();
        assert_eq!(
            text,
            r#"<a href="/hooks/status">href=&quot;/x</a><input value="/settings"><a href="https://x/"></a>"#
        );
    }

    #[test]
    fn a_cookie_is_for_the_base_path() {
        let cookie = HeaderValue::from_static("a=b; HttpOnly; Path=/");
        assert_eq!(scoped("/hooks", &cookie), "a=b; HttpOnly; Path=/hooks");
    }
}
