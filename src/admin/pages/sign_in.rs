//! The page where people sign in with the admin token.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::CookieJar;
use maud::{Markup, html};
use serde::Deserialize;

use super::form::Form;
use super::layout::layout;
use crate::admin::auth::{self, Guard};
use crate::admin::problem::Refusal;
use crate::admin::state::Shared;

/// The path to go to after signing in.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct SignInQuery {
    next: String,
}

/// The fields of the form.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Entered {
    token: String,
    next: String,
}

/// `GET /sign-in`
pub async fn show(State(admin): State<Shared>, RawQuery(query): RawQuery) -> Result<Markup, Refusal> {
    let SignInQuery { next } = Form::of_query(query.as_deref())?;
    Ok(page(&admin, &next, None))
}

/// `POST /sign-in`
pub async fn sign_in(
    State(admin): State<Shared>,
    jar: CookieJar,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    // There is no session yet, so there is no CSRF token to check. The admin token itself protects this form.
    let entered: Entered = serde_html_form::from_bytes(&body).unwrap_or_default();
    if !admin.guard.accepts(&entered.token) {
        let problem = "This is not the admin token. The admin token is the value of admin.token in the configuration.";
        return (StatusCode::UNAUTHORIZED, page(&admin, &entered.next, Some(problem))).into_response();
    }
    let cookie = admin.guard.sign_in(auth::now_s(), auth::is_secure(&headers));
    (jar.add(cookie), Redirect::to(local_path(&entered.next))).into_response()
}

/// `POST /sign-out`
pub async fn sign_out(jar: CookieJar, Form(_): Form<serde::de::IgnoredAny>) -> Response {
    (jar.add(Guard::sign_out()), Redirect::to(auth::SIGN_IN)).into_response()
}

/// The path `next` if it stays on this server, else the list of webhooks. Another server could imitate these pages.
fn local_path(next: &str) -> &str {
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
                p .flash.warn { "No admin token is set, so nobody can sign in. Set " code { "admin.token" } ", for example with the environment variable "
                    code { "OPTIO_WEBHOOKS__ADMIN__TOKEN" } ", and restart." }
            }
        }
    };
    layout("Sign in", None, None, &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_redirects_only_to_a_path_of_this_server() {
        assert_eq!(local_path("/status?x=1"), "/status?x=1");
        for elsewhere in ["https://evil.example/", "//evil.example/", "/\\evil.example", "", "settings"] {
            assert_eq!(local_path(elsewhere), "/settings/webhooks", "{elsewhere}");
        }
    }
}
