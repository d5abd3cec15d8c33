//! The result of one HTTP request.

use std::time::Duration;

use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};

/// Why an attempt failed, or why a delivery was deferred (`docs/reference.md`, section "Failure codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The answer's status is neither 2xx nor 3xx.
    Status,
    /// No complete answer came within `delivery.timeout`.
    Timeout,
    /// The host's name has no address, or one that may not be dialled, or it can't be looked up.
    Dns,
    /// No connection could be made, or it broke.
    Connect,
    /// The TLS handshake failed: certificate, version or cipher.
    Tls,
    /// The answer's status is 3xx. Redirects are never followed.
    Redirect,
    /// The URL's scheme, port or literal address may not be used. For an address that a name resolves to, the code is
    /// `Dns`.
    AddressBlocked,
    /// The answer's body broke off.
    Body,
    /// The answer isn't HTTP, or breaks its rules.
    Protocol,
    /// The way out failed before the endpoint was reached: the egress proxy or the name servers. It says nothing about
    /// the endpoint.
    Egress,
    /// Deferred: the endpoint is busy or cooling down, no permit came free, or the webhook is unsupported.
    Saturated,
    /// Deferred: the endpoint's circuit is open.
    CircuitOpen,
}

impl FailureCode {
    /// All codes.
    pub const ALL: [Self; 12] = [
        Self::Status,
        Self::Timeout,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Redirect,
        Self::AddressBlocked,
        Self::Body,
        Self::Protocol,
        Self::Egress,
        Self::Saturated,
        Self::CircuitOpen,
    ];

    /// Whether the code is the reason of a deferral. Such a code is never the result of an attempt.
    #[must_use]
    pub fn is_deferral(self) -> bool {
        matches!(self, Self::Saturated | Self::CircuitOpen)
    }

    /// Whether the attempt says something about the endpoint. Others neither open its circuit nor count towards
    /// disabling its webhook.
    #[must_use]
    pub fn is_of_endpoint(self) -> bool {
        !matches!(self, Self::Egress)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Redirect => "redirect",
            Self::AddressBlocked => "address_blocked",
            Self::Body => "body",
            Self::Protocol => "protocol",
            Self::Egress => "egress",
            Self::Saturated => "saturated",
            Self::CircuitOpen => "circuit_open",
        }
    }

    /// The meaning of the code, for people.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Status => "the endpoint answered with a status that isn't 2xx",
            Self::Timeout => "no complete answer came in time",
            Self::Dns => "the host's name has no address that may be used, or it can't be looked up",
            Self::Connect => "no connection could be made, or it broke",
            Self::Tls => "the TLS handshake failed: the endpoint's certificate, TLS version or cipher isn't accepted",
            Self::Redirect => "the endpoint answered with a redirect, and redirects are never followed",
            Self::AddressBlocked => "the URL has an address or a port that requests may not go to",
            Self::Body => "the answer's body broke off",
            Self::Protocol => "the answer wasn't HTTP, or broke its rules",
            Self::Egress => {
                "Optio's egress proxy or name servers failed, not the endpoint: it counts neither for the circuit nor for \
                 disabling"
            }
            Self::Saturated => "deferred without an attempt: the endpoint can't take more for now",
            Self::CircuitOpen => "deferred without an attempt: the endpoint's circuit is open",
        }
    }
}

/// The result of one HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The reason of the failure, or `None` for a success.
    pub failure: Option<FailureCode>,
    /// A sentence for people that says at which step the attempt failed and why: one bounded line without secrets.
    pub detail: Option<String>,
    /// The answer's status, if an answer came.
    pub status: Option<u16>,
    /// The part of the answer's body that is kept.
    pub response_body: String,
    /// The time from the start of the request to the end of the body.
    pub duration: Duration,
    /// The pause that the endpoint asked for with `Retry-After`.
    pub retry_after: Option<Duration>,
    /// When the attempt ended, in Unix milliseconds.
    pub ended_at_ms: i64,
    /// Whether an HTTP request was sent. Without a connection there was none.
    pub is_sent: bool,
    /// The request headers that can't be derived from the delivery: the signatures, their timestamp and the trace
    /// context. They have the type of the HTTP client's values, so none of them can have been left out of the request.
    pub proofs: Vec<(&'static str, HeaderValue)>,
    /// The names of the headers that the webhook's owner added. Their values are secrets.
    pub custom_headers: Vec<String>,
}

impl Attempt {
    /// Returns the part of the result that the circuit breaker and the pace of the endpoint use.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome { failure: self.failure, status: self.status, retry_after: self.retry_after }
    }
}

/// The part of an attempt's result that says how the endpoint is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The reason of the failure, or `None` for a success.
    pub failure: Option<FailureCode>,
    /// The answer's status, if an answer came.
    pub status: Option<u16>,
    /// The pause that the endpoint asked for with `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl Outcome {
    /// Whether the outcome says something about the endpoint, and not only about our own way out.
    #[must_use]
    pub fn is_of_endpoint(&self) -> bool {
        self.failure.is_none_or(FailureCode::is_of_endpoint)
    }

    /// Whether the result is a sign of overload: a timeout, 429, 502, 503 or 504.
    #[must_use]
    pub fn is_overload(self) -> bool {
        self.failure == Some(FailureCode::Timeout) || matches!(self.status, Some(429 | 502 | 503 | 504))
    }
}
