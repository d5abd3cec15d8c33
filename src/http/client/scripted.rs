//! A client whose answers come from a function, for simulations.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::HeaderMap;
use rustls::RootCertStore;
use url::Url;

use super::{Client, limits};
use crate::config;
use crate::http::failure::SendError;
use crate::http::names::Names;

/// Answers a request, which has these headers, with a status or an error.
pub type Script = Arc<dyn Fn(&Url, &HeaderMap) -> BoxFuture<'static, Result<u16, SendError>> + Send + Sync>;

impl Client {
    /// A client whose requests `script` answers.
    pub(crate) fn scripted(delivery: &config::DeliverySettings, script: Script) -> Self {
        let names = Names::system(limits(delivery));
        let mut client = Self::with(delivery, RootCertStore::empty(), names).expect("the settings are valid");
        Arc::get_mut(&mut client.0).expect("nobody else has it yet").script = Some(script);
        client
    }

    /// The answer of the script, if there is one.
    pub(crate) async fn scripted_answer(
        &self,
        url: &Url,
        headers: impl Fn() -> HeaderMap,
    ) -> Option<Result<u16, SendError>> {
        let answer = self.0.script.as_ref()?(url, &headers());
        let timed_out = |_| Err(SendError::timeout("waiting for an answer"));
        Some(tokio::time::timeout(self.0.timeout, answer).await.unwrap_or_else(timed_out))
    }
}
