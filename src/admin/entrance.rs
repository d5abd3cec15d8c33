//! Who gets in: a program with a bearer token, and a person with a session or with a token to sign in.

use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::client::Client;
use super::problem::{Problem, Refusal};
use super::sessions::{SIGN_IN, cookies};
use super::state::{Admin, Shared};
use super::throttle::Tried;
use super::tokens::may;
use crate::clock::whole_seconds;
use crate::config::Token;
use crate::metrics;
use crate::store::audit::{Action, Author, Record, Via};
use crate::store::is_away;

/// Why a token opens nothing.
pub enum Refused {
    /// It is wrong.
    Wrong,
    /// There were too many wrong ones. The client may try again after this time.
    Wait(Duration),
}

impl Admin {
    /// The token with this text, if the client may try one.
    pub async fn try_token(&self, client: Client, via: Via, text: &str) -> Result<&Token, Refused> {
        // A header loses the spaces around a token, and a form keeps them.
        let check = || self.tokens.find(text).or_else(|| self.tokens.find(text.trim()));
        let audit = match self.throttle.attempt(client, Instant::now(), check) {
            Tried::Right(token) => return Ok(token),
            Tried::Wait(time) => return Err(Refused::Wait(time)),
            Tried::Wrong { audit } => audit,
        };
        metrics::SIGN_IN_FAILURES.increment();
        if audit {
            tracing::warn!(address = %client.address, ?via, "wrong token");
            self.audit.note(&Record::new(&author(via, None, client), Action::SignInFailed)).await;
        }
        Err(Refused::Wrong)
    }
}

/// The author of what a client does.
pub fn author(via: Via, name: Option<&str>, client: Client) -> Author {
    Author { via, name: name.map(str::to_owned), address: Some(client.address.to_string()) }
}

/// The answer to a client that must wait.
pub fn wait(time: Duration) -> Problem {
    let seconds = whole_seconds(time);
    Problem::too_many(seconds, format!("There were too many wrong tokens. Try again in {seconds} seconds."))
}

/// Lets a request to the API with a bearer token through, if the token may make it.
pub async fn require_token(State(admin): State<Shared>, mut request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let text = authorization
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, text)| text.to_owned());
    let client = client(&request);
    let sentence = match (admin.tokens.is_empty(), text) {
        (true, _) => "admin.token is not set: set it to use the API and the page",
        (false, None) => "a bearer token is needed: Authorization: Bearer <admin.token>",
        (false, Some(text)) => match admin.try_token(client, Via::Bearer, &text).await {
            Ok(token) if may(token.role, request.method()) => {
                request.extensions_mut().insert(author(Via::Bearer, Some(&token.name), client));
                return next.run(request).await;
            }
            Ok(token) => return read_only(&token.name).into_response(),
            Err(Refused::Wait(time)) => return wait(time).into_response(),
            Err(Refused::Wrong) => "the bearer token is neither the value of admin.token nor one of admin.tokens",
        },
    };
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    (challenge, Problem::new(StatusCode::UNAUTHORIZED, sentence)).into_response()
}

/// Lets a request with a session through, if the session may make it, and sends a person without one to the sign-in
/// page.
pub async fn require_session(State(admin): State<Shared>, mut request: Request, next: Next) -> Response {
    let mut session = Ok(None);
    for cookie in cookies(request.headers()) {
        session = admin.sessions.find(&admin.tokens, cookie).await;
        if !matches!(session, Ok(None)) {
            break;
        }
    }
    let client = client(&request);
    match session {
        Ok(Some(session)) => {
            let may_leave = request.uri().path() == SIGN_OUT;
            if !may_leave && !may(session.role, request.method()) {
                return Refusal(read_only(&session.name)).into_response();
            }
            request.extensions_mut().insert(author(Via::Session, Some(&session.name), client));
            request.extensions_mut().insert(session);
            next.run(request).await
        }
        Ok(None) if request.method() == Method::GET => {
            let wanted = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let query = serde_html_form::to_string([("next", wanted)]).unwrap_or_default();
            Redirect::to(&format!("{SIGN_IN}?{query}")).into_response()
        }
        Ok(None) => {
            let sentence = "You are signed out: sign in and try again. Nothing was changed.";
            Refusal(Problem::new(StatusCode::UNAUTHORIZED, sentence)).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "sessions can't be checked");
            let sentence = if is_away(&error) {
                "Redis is away, so nobody knows whether you are still signed in. Try again in a moment. Nothing was changed."
            } else {
                "Redis answers with an error, so nobody knows whether you are still signed in. The log has the reason. \
                 Nothing was changed."
            };
            Refusal(Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence)).into_response()
        }
    }
}

/// The path that ends a session. A session that may only read may be ended as well.
pub const SIGN_OUT: &str = "/sign-out";

/// The client of a request.
fn client(request: &Request) -> Client {
    *request.extensions().get::<Client>().expect("the server names the client of every request")
}

/// 403: the token may only read.
pub fn read_only(name: &str) -> Problem {
    let sentence = format!("The token {name:?} may only read, because its role is \"read\". Nothing was changed.");
    Problem::new(StatusCode::FORBIDDEN, sentence)
}
