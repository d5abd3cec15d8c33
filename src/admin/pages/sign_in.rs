//! Signing in with the admin token.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::CookieJar;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::layout;
use super::{Form, Refusal};
use crate::admin::Shared;
use crate::admin::auth::{self, Guard};

/// Where to go then.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Next {
    next: String,
}

/// What a person entered.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Entered {
    token: String,
    next: String,
}

/// `GET /sign-in`
pub async fn show(State(admin): State<Shared>, RawQuery(query): RawQuery) -> Result<Markup, Refusal> {
    let Next { next } = Form::of_query(query.as_deref())?;
    Ok(page(&admin, &next, None))
}

/// `POST /sign-in`
pub async fn sign_in(
    State(admin): State<Shared>,
    jar: CookieJar,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    // No session yet, so no CSRF token: whoever makes a browser sign in must know the admin token.
    let entered: Entered = serde_html_form::from_bytes(&body).unwrap_or_default();
    if !admin.guard.knows(&entered.token) {
        let problem = "That isn't the admin token. It is the value of admin.token in the configuration.";
        return (StatusCode::UNAUTHORIZED, page(&admin, &entered.next, Some(problem))).into_response();
    }
    let cookie = admin.guard.sign_in(auth::now_s(), auth::is_secure(&headers));
    (jar.add(cookie), Redirect::to(local(&entered.next))).into_response()
}

/// `POST /sign-out`
pub async fn sign_out(jar: CookieJar, Form(_): Form<serde::de::IgnoredAny>) -> Response {
    (jar.add(Guard::sign_out()), Redirect::to(auth::SIGN_IN)).into_response()
}

/// Only ever a place of this server: another one could pretend to be it.
fn local(next: &str) -> &str {
    let is_local = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n', '\t']);
    if is_local { next } else { "/settings/webhooks" }
}

fn page(admin: &Shared, next: &str, problem: Option<&str>) -> Markup {
    let content = html! {
        div .narrow {
            h1 { "Sign in" }
            @if let Some(problem) = problem {
                p #problem .flash.bad role="alert" { (problem) }
            }
            @if admin.guard.is_set() {
                form .card method="post" action=(auth::SIGN_IN) {
                    input type="hidden" name="next" value=(next);
                    div .field {
                        label for="token" { "Admin token" }
                        input #token name="token" type="password" required autofocus autocomplete="current-password"
                            aria-describedby=[problem.map(|_| "problem")];
                        p .hint { "The value of " code { "admin.token" } " in the configuration." }
                    }
                    button { "Sign in" }
                }
            } @else {
                p .flash.warn { "No admin token is set, so nobody can sign in. Set " code { "admin.token" } ", for example by the environment variable "
                    code { "OPTIO_WEBHOOKS__ADMIN__TOKEN" } ", and start again." }
            }
        }
    };
    layout("Sign in", None, None, &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_only_places_of_this_server_are_gone_to() {
        assert_eq!(local("/status?x=1"), "/status?x=1");
        for elsewhere in ["https://evil.example/", "//evil.example/", "/\\evil.example", "", "settings"] {
            assert_eq!(local(elsewhere), "/settings/webhooks", "{elsewhere}");
        }
    }
}
