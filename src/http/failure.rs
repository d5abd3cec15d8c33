//! Why a request failed: a code for programs and a sentence for people.

use std::error::Error;
use std::fmt::{self, Write as _};

use crate::delivery::FailureCode;

/// The longest detail sentence of a failure, in characters.
pub const DETAIL_MAX: usize = 300;

/// A request that got no answer, or an answer whose body broke off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SendError {
    /// The failure code (`docs/reference.md`, section "Failure codes").
    pub code: FailureCode,
    /// The step that failed and the reason, in one line of at most [`DETAIL_MAX`] characters, without secrets.
    pub detail: String,
}

impl SendError {
    /// Builds a failure of `step`, for example "connecting to 192.0.2.1:443".
    #[must_use]
    pub fn new(code: FailureCode, step: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self { code, detail: sentence(format_args!("{step}: {reason}")) }
    }

    /// Builds the failure of an attempt whose time ran out during `step`.
    #[must_use]
    pub fn timeout(step: impl fmt::Display) -> Self {
        Self::new(FailureCode::Timeout, step, "not finished when the attempt's time (delivery.timeout) ran out")
    }
}

/// Formats `text` as one line of at most [`DETAIL_MAX`] characters. Control characters become spaces, because some of
/// the text comes from the endpoint.
#[must_use]
pub fn sentence(text: impl fmt::Display) -> String {
    let mut bounded = Bounded(String::new(), 0);
    // The only possible error means that the bound was reached.
    if write!(bounded, "{text}").is_err() {
        bounded.0.push('…');
    }
    bounded.0
}

/// A text and its length in characters. It stops accepting characters at the bound, so that a long text is never built.
struct Bounded(String, usize);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.1 == DETAIL_MAX - 1 {
                return Err(fmt::Error);
            }
            self.0.push(if character.is_control() { ' ' } else { character });
            self.1 += 1;
        }
        Ok(())
    }
}

/// Returns the failure code and the reason for a broken exchange. It goes by the types of the errors, not by their
/// text.
#[must_use]
pub fn classify(error: &hyper::Error) -> (FailureCode, String) {
    if let Some(tls) = causes(error).find_map(rustls_error) {
        return (FailureCode::Tls, super::tls::explanation(tls));
    }
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>()) {
        return classify_h2(error);
    }
    if error.is_parse_too_large() {
        let reason = "the answer has more or larger headers than allowed (delivery.response_headers_max)";
        return (FailureCode::Protocol, reason.to_owned());
    }
    if error.is_parse() {
        return (FailureCode::Protocol, format!("the received data isn't an HTTP answer: {}", chain(error)));
    }
    if error.is_timeout() {
        return (FailureCode::Connect, "the endpoint stopped answering HTTP/2 pings".to_owned());
    }
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>()) {
        return (FailureCode::Connect, format!("the connection broke: {error}"));
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return (FailureCode::Connect, "the endpoint closed the connection before its answer was complete".to_owned());
    }
    (FailureCode::Protocol, chain(error))
}

fn classify_h2(error: &h2::Error) -> (FailureCode, String) {
    if let Some(error) = error.get_io() {
        return (FailureCode::Connect, format!("the connection broke: {error}"));
    }
    let reason = error.reason().map_or_else(|| error.to_string(), |reason| format!("{reason:?}, {reason}"));
    if error.is_remote() && error.is_go_away() {
        return (FailureCode::Connect, format!("the endpoint ended the HTTP/2 connection (GOAWAY): {reason}"));
    }
    if is_unprocessed_h2(error) {
        return (FailureCode::Connect, format!("the endpoint refused the HTTP/2 stream: {reason}"));
    }
    let problem = if error.is_remote() { "the endpoint reset the HTTP/2 stream" } else { "HTTP/2 protocol error" };
    (FailureCode::Protocol, format!("{problem}: {reason}"))
}

/// Whether the endpoint says that it did not process the request (RFC 9113 section 8.7).
#[must_use]
pub fn is_unprocessed(error: &hyper::Error) -> bool {
    causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>()).is_some_and(is_unprocessed_h2)
}

fn is_unprocessed_h2(error: &h2::Error) -> bool {
    // h2 gives this error only to streams above the GOAWAY's last-stream-id.
    let above_last = error.is_go_away();
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (above_last || refused)
}

/// Joins an error and its causes into one text.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error).take(5) {
        let message = cause.to_string();
        // Many errors already end with the text of their source.
        if !text.ends_with(&message) {
            let separator = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{separator}{message}");
        }
    }
    text
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// tokio-rustls wraps a rustls error in an `io::Error`, which doesn't return it from `source()`.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.downcast_ref::<rustls::Error>().or_else(|| inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_one_line_of_at_most_300_characters() {
        assert_eq!(sentence("a\nb\u{1b}[31m\0c"), "a b [31m c");
        let long = sentence("é".repeat(10_000));
        assert_eq!(long.chars().count(), DETAIL_MAX);
        assert!(long.ends_with('…'));
        assert_eq!(sentence("x".repeat(DETAIL_MAX - 1)).len(), DETAIL_MAX - 1);
    }
}
