//! The egress proxy. An https request goes through a CONNECT tunnel; an http request is sent to the proxy with its
//! whole URL.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::failure::SendError;
use crate::config::proxy::Proxy;
use crate::delivery::FailureCode;

/// The largest head of the proxy's answer to a CONNECT, in bytes.
const ANSWER_MAX: usize = 16_384;
/// The most headers in that answer.
const HEADERS_MAX: usize = 128;

impl Proxy {
    /// Opens a tunnel to `target` (host and port) over `stream`, which leads to the proxy.
    ///
    /// # Errors
    /// Fails if the proxy refuses, breaks the connection, or doesn't answer before `deadline`.
    pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        target: &str,
        deadline: Instant,
    ) -> Result<(), SendError> {
        let step = format!("asking the proxy {}:{} for a tunnel to {target}", self.host, self.port);
        match timeout_at(deadline, self.send_connect(stream, target)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err((code, reason))) => Err(SendError::new(code, step, reason)),
            Err(_) => Err(SendError::timeout(step)),
        }
    }

    async fn send_connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        target: &str,
    ) -> Result<(), (FailureCode, String)> {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        // What the proxy itself gets wrong is no failure of the endpoint. A status says that the proxy couldn't reach it,
        // or may not.
        let ours = |reason: String| (FailureCode::Egress, reason);
        let broke = |error: std::io::Error| ours(format!("the connection broke: {error}"));
        stream.write_all(&request).await.map_err(broke)?;
        stream.flush().await.map_err(broke)?;
        let mut answer = Vec::new();
        loop {
            if stream.read_buf(&mut answer).await.map_err(broke)? == 0 {
                return Err(ours("the proxy closed the connection".to_owned()));
            }
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut parsed = httparse::Response::new(&mut headers);
            match parsed.parse(&answer) {
                Ok(httparse::Status::Complete(_)) => match parsed.code {
                    Some(200..=299) => return Ok(()),
                    Some(407) => {
                        return Err(ours("the proxy rejected the credentials, or needs some (status 407)".to_owned()));
                    }
                    code => {
                        let reason = format!("the proxy answered with status {}", code.unwrap_or_default());
                        return Err((FailureCode::Connect, reason));
                    }
                },
                Ok(httparse::Status::Partial) if answer.len() < ANSWER_MAX => {}
                Ok(httparse::Status::Partial) => return Err(ours("the proxy's answer is too large".to_owned())),
                Err(error) => return Err(ours(format!("the proxy's answer isn't HTTP: {error}"))),
            }
        }
    }
}
