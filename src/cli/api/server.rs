//! Calls of the API: of an admin server, or in this process, on Kafka and Redis.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, header};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::admin;
use crate::cli::Failure;
use crate::cli::author::author;
use crate::config::Config;
use crate::secret::Secret;

/// How long a server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The longest answer that is read, in bytes.
const BYTES_MAX: usize = 64 << 20;

/// Where the API is called.
pub enum Server {
    /// At an admin server.
    Remote {
        /// Its address, with the path below which it serves.
        server: url::Url,
        /// The bearer token.
        token: Secret,
        /// The client.
        client: reqwest::Client,
    },
    /// In this process.
    Here(Box<Router>),
}

impl Server {
    /// An admin server.
    ///
    /// # Errors
    /// The address or the token can't be used.
    pub fn remote(server: url::Url, token: Option<Secret>) -> Result<Self, Failure> {
        if !matches!(server.scheme(), "http" | "https") {
            return Err(Failure::Usage("--server must begin with http:// or https://".to_owned()));
        }
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            let sentence = "a token is needed: set OPTIO_WEBHOOKS_TOKEN, or give --token, or set admin.token";
            return Err(Failure::Usage(sentence.to_owned()));
        };
        // No timeout of the whole call, because a stream has none.
        let client = reqwest::Client::builder()
            .connect_timeout(ANSWER_MAX)
            .read_timeout(ANSWER_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("the HTTP client can't be made")?;
        Ok(Self::Remote { server, token, client })
    }

    /// This process, with the stores of the configuration.
    ///
    /// # Errors
    /// The stores can't be used.
    pub fn here(config: &Config) -> Result<Self, Failure> {
        Ok(Self::Here(Box::new(admin::in_process(config, author())?)))
    }

    /// Whether the API is called in this process.
    pub fn is_here(&self) -> bool {
        matches!(self, Self::Here(_))
    }

    /// Calls the API. `path` has the query.
    ///
    /// # Errors
    /// The server doesn't answer, or answers with an error, whose sentence is the failure.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, body) = match self {
            Self::Remote { server, token, client } => {
                let url = at(server, path);
                let mut request = client.request(method, url).bearer_auth(token.expose());
                if let Some(body) = body {
                    request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
                }
                let mut answer = request.send().await.with_context(|| format!("{server} doesn't answer"))?;
                let status = answer.status();
                let mut bytes = Vec::new();
                while let Some(part) = answer.chunk().await.with_context(|| format!("{server} broke off"))? {
                    if bytes.len() + part.len() > BYTES_MAX {
                        return Err(anyhow::anyhow!("the answer is longer than {BYTES_MAX} bytes").into());
                    }
                    bytes.extend_from_slice(&part);
                }
                (status, bytes)
            }
            Self::Here(routes) => {
                let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
                let request =
                    Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
                let request = request.body(body).map_err(|error| Failure::Usage(format!("{path:?}: {error}")))?;
                let answer = routes.as_ref().clone().oneshot(request).await.unwrap_or_else(|never| match never {});
                let status = answer.status();
                (status, to_bytes(answer.into_body(), BYTES_MAX).await.context("the answer")?.to_vec())
            }
        };
        let answer: Value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).map_err(|_| {
                anyhow::anyhow!("the answer (status {}) is no JSON; is --server an admin server?", status.as_u16())
            })?,
        };
        if status.is_success() {
            return Ok(answer);
        }
        let sentence = answer["error"].as_str().unwrap_or("no reason is given").to_owned();
        if status.as_u16() == 400 { Err(Failure::Usage(sentence)) } else { Err(anyhow::anyhow!(sentence).into()) }
    }
}

/// The address of `path` at a server that may serve below a path of its own.
pub fn at(server: &url::Url, path: &str) -> url::Url {
    let mut url = server.clone();
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    url.set_path(&format!("{}{path}", server.path().trim_end_matches('/')));
    url.set_query(query);
    url
}
