//! The page where people sign in with the admin token.

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::CookieJar;
use maud::{Markup, html};
use serde::Deserialize;

use super::form::Form;
use super::layout::layout;
use crate::admin::client::Client;
use crate::admin::entrance::{self, Refused, author};
use crate::admin::problem::Refusal;
use crate::admin::sessions::{self, SIGN_IN, Session};
use crate::admin::state::Shared;
use crate::store::audit::{Action, Author, Record, Via};
use crate::store::is_away;

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
    Extension(client): Extension<Client>,
    jar: CookieJar,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    // There is no session yet, so there is no CSRF token to check. The token itself protects this form.
    let entered: Entered = serde_html_form::from_bytes(&body).unwrap_or_default();
    let refuse = |status, sentence: &str| (status, page(&admin, &entered.next, Some(sentence))).into_response();
    let token = match admin.try_token(client, Via::Session, &entered.token).await {
        Ok(token) => token,
        Err(Refused::Wrong) => {
            let sentence = "This is not a token of this server. Its tokens are the values of admin.token and \
                            admin.tokens in the configuration.";
            return refuse(StatusCode::UNAUTHORIZED, sentence);
        }
        Err(Refused::Wait(time)) => {
            let problem = entrance::wait(time);
            return (problem.headers(), refuse(problem.status, &problem.sentence)).into_response();
        }
    };
    let who = author(Via::Session, Some(&token.name), client);
    // The entry is written first: nobody is signed in without one.
    let signed_in = match admin.audit.write(&Record::new(&who, Action::SignedIn)).await {
        Ok(()) => admin.sessions.sign_in(token).await,
        Err(error) => Err(error),
    };
    match signed_in {
        Ok(value) => {
            tracing::info!(name = token.name, address = %client.address, "signed in");
            let cookie = sessions::cookie(value, sessions::is_secure(&headers));
            (jar.add(cookie), Redirect::to(local_path(&entered.next))).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "nobody can sign in");
            let sentence = if is_away(&error) {
                "Your token is right, but Redis is away, so nobody can sign in. Try again in a moment."
            } else {
                "Your token is right, but Redis refuses what a sign-in writes, so nobody can sign in. The log has the reason."
            };
            refuse(StatusCode::SERVICE_UNAVAILABLE, sentence)
        }
    }
}

/// `POST /sign-out`
pub async fn sign_out(
    State(admin): State<Shared>,
    Extension(session): Extension<Session>,
    Extension(who): Extension<Author>,
    jar: CookieJar,
    headers: HeaderMap,
    Form(_): Form<serde::de::IgnoredAny>,
) -> Result<Response, Refusal> {
    // The cookie is removed only once the session has ended, so that the person can try again.
    admin.sessions.sign_out(&session).await?;
    // A cookie of another path, which can't be removed from here, would sign the person in again.
    for cookie in sessions::cookies(&headers) {
        if let Some(other) = admin.sessions.find(&admin.tokens, cookie).await? {
            admin.sessions.sign_out(&other).await?;
        }
    }
    tracing::info!(name = session.name, "signed out");
    admin.audit.note(&Record::new(&who, Action::SignedOut)).await;
    Ok((jar.add(sessions::removal()), Redirect::to(SIGN_IN)).into_response())
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
            @if !admin.tokens.is_empty() {
                form .card method="post" action=(SIGN_IN) {
                    input type="hidden" name="next" value=(next);
                    div .field {
                        label for="token" { "Admin token" }
                        input #token name="token" type="password" required autofocus autocomplete="current-password"
                            aria-describedby=[problem.map(|_| "problem")];
                        p .hint { "The value of " code { "admin.token" } " in the configuration, or a token of " code { "admin.tokens" } "." }
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
