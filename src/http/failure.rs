//! Why a request failed: a code for programs and a sentence for people.

use std::error::Error;
use std::fmt::{self, Write as _};

use crate::delivery::FailureCode;

/// Characters of a failure's sentence at most.
pub const DETAIL_MAX: usize = 300;

/// A request that has no answer, or an answer whose body broke off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SendError {
    /// What the failure is called (contract section 6).
    pub code: FailureCode,
    /// At which step it failed and why: one line of at most [`DETAIL_MAX`] characters, without secrets.
    pub detail: String,
}

impl SendError {
    /// A failure at `step`, for example "connecting to 192.0.2.1:443".
    #[must_use]
    pub fn new(code: FailureCode, step: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self { code, detail: sentence(format_args!("{step}: {reason}")) }
    }

    /// The attempt's time ran out at `step`.
    #[must_use]
    pub fn timeout(step: impl fmt::Display) -> Self {
        Self::new(FailureCode::Timeout, step, "this wasn't done when the attempt's time (delivery.timeout) ran out")
    }
}

/// `text` as one line of at most [`DETAIL_MAX`] characters. Control characters become spaces: some of the text comes
/// from the endpoint.
#[must_use]
pub fn sentence(text: impl fmt::Display) -> String {
    let mut bounded = Bounded(String::new(), 0);
    // An error only says that the bound is reached.
    if write!(bounded, "{text}").is_err() {
        bounded.0.push('…');
    }
    bounded.0
}

/// Takes characters up to a bound, so that a long text is never built.
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

/// What a broken exchange is called, and why it broke. By the error's types, not by its text.
#[must_use]
pub fn of_hyper(error: &hyper::Error) -> (FailureCode, String) {
    if let Some(tls) = causes(error).find_map(rustls_error) {
        return (FailureCode::Tls, super::tls::explanation(tls));
    }
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>()) {
        return of_h2(error);
    }
    if error.is_parse_too_large() {
        let reason = "the answer's headers are larger or more than allowed (delivery.response_headers_max)";
        return (FailureCode::Protocol, reason.to_owned());
    }
    if error.is_parse() {
        return (FailureCode::Protocol, format!("what came isn't an HTTP answer: {}", chain(error)));
    }
    if error.is_timeout() {
        return (FailureCode::Connect, "the endpoint doesn't answer HTTP/2 pings any more".to_owned());
    }
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>()) {
        return (FailureCode::Connect, format!("the connection broke: {error}"));
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return (FailureCode::Connect, "the endpoint closed the connection without a whole answer".to_owned());
    }
    (FailureCode::Protocol, chain(error))
}

fn of_h2(error: &h2::Error) -> (FailureCode, String) {
    if let Some(error) = error.get_io() {
        return (FailureCode::Connect, format!("the connection broke: {error}"));
    }
    let reason = error.reason().map_or_else(|| error.to_string(), |reason| format!("{reason:?}, {reason}"));
    if error.is_remote() && error.is_go_away() {
        return (FailureCode::Connect, format!("the endpoint ended the HTTP/2 connection (GOAWAY): {reason}"));
    }
    if is_unprocessed(error) {
        return (FailureCode::Connect, format!("the endpoint refused the HTTP/2 stream: {reason}"));
    }
    let who = if error.is_remote() { "the endpoint reset the HTTP/2 stream" } else { "HTTP/2 was violated" };
    (FailureCode::Protocol, format!("{who}: {reason}"))
}

/// Whether the endpoint says that it did not process the request (RFC 9113 section 8.7).
#[must_use]
pub fn says_unprocessed(error: &hyper::Error) -> bool {
    causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>()).is_some_and(is_unprocessed)
}

fn is_unprocessed(error: &h2::Error) -> bool {
    // h2 gives this error to those streams only that are above the GOAWAY's last-stream-id.
    let above_last = error.is_go_away();
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (above_last || refused)
}

/// An error and what caused it.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error).take(5) {
        let words = cause.to_string();
        // Many errors repeat their source in their own words.
        if !text.ends_with(&words) {
            let separator = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{separator}{words}");
        }
    }
    text
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// rustls's errors travel inside of io::Error, which doesn't show what it holds as its source.
fn rustls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.downcast_ref::<rustls::Error>().or_else(|| inside.and_then(|inside| inside.downcast_ref::<rustls::Error>()))
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
