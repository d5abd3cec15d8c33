//! Asks an admin server for its status.

use std::time::Duration;

use anyhow::Context as _;

use crate::admin::status::Status;
use crate::secret::Secret;

/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes. A status has a line per partition and at most 200 endpoints per worker.
const BYTES_MAX: usize = 64 << 20;

pub(super) struct Feed {
    pub(super) server: url::Url,
    client: reqwest::Client,
    token: Secret,
}

impl Feed {
    pub(super) fn new(server: url::Url, token: &Secret) -> anyhow::Result<Self> {
        anyhow::ensure!(matches!(server.scheme(), "http" | "https"), "--server must begin with http:// or https://");
        let client = reqwest::Client::builder().timeout(ANSWER_MAX).build().context("the HTTP client can't be made")?;
        Ok(Self { server, client, token: token.clone() })
    }

    /// The status at this moment, or a sentence that says why it can't be had.
    pub(super) async fn status(&self) -> Result<Status, String> {
        let mut url = self.server.clone();
        url.set_path(&format!("{}/api/status", url.path().trim_end_matches('/')));
        let mut request = self.client.get(url);
        if !self.token.is_empty() {
            request = request.bearer_auth(self.token.expose());
        }
        let mut answer = request.send().await.map_err(|error| reason(&error))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|error| reason(&error))? {
            if body.len() + part.len() > BYTES_MAX {
                return Err(format!("the answer is longer than {BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&part);
        }
        match status.as_u16() {
            200 => serde_json::from_slice(&body).map_err(|error| format!("the answer is no status: {error}")),
            401 => Err("the server refuses the token; admin.token of the configuration is sent".to_owned()),
            code => {
                let said: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
                let said = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or("no reason is given");
                Err(format!("the server answers {code}: {said}"))
            }
        }
    }
}

/// The innermost reason, because the outer ones only repeat the address.
fn reason(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
