//! What one HTTP request came to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why an attempt failed (contract section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// An answer that isn't 2xx.
    Status,
    /// No whole answer within `delivery.timeout`.
    Timeout,
    /// The host's name has no address, or no name server answers.
    Dns,
    /// No connection could be made, or it broke.
    Connect,
    /// The TLS handshake failed: certificates, versions, ciphers.
    Tls,
    /// An answer that points elsewhere; never followed.
    Redirect,
    /// The host's address may not be dialled.
    AddressBlocked,
    /// The answer's body broke off.
    Body,
    /// What came wasn't HTTP, or broke its rules.
    Protocol,
    /// Put off: the endpoint has its hands full.
    Saturated,
    /// Put off: the endpoint is known to be down.
    CircuitOpen,
}

impl FailureCode {
    /// All codes.
    pub const ALL: [Self; 11] = [
        Self::Status,
        Self::Timeout,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Redirect,
        Self::AddressBlocked,
        Self::Body,
        Self::Protocol,
        Self::Saturated,
        Self::CircuitOpen,
    ];

    /// Whether it stands for a deferral, not for an attempt.
    #[must_use]
    pub fn is_deferral(self) -> bool {
        matches!(self, Self::Saturated | Self::CircuitOpen)
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
            Self::Saturated => "saturated",
            Self::CircuitOpen => "circuit_open",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::Status => "the endpoint answered with a status that isn't 2xx",
            Self::Timeout => "no whole answer came in time",
            Self::Dns => "the host's name has no address, or no name server answers",
            Self::Connect => "no connection could be made, or it broke",
            Self::Tls => "no TLS with the endpoint: its certificate or its versions of TLS aren't accepted",
            Self::Redirect => "the endpoint answered with a redirect; these are never followed",
            Self::AddressBlocked => "the host's address isn't public and may not be dialled",
            Self::Body => "the answer's body broke off",
            Self::Protocol => "what came back wasn't HTTP, or broke its rules",
            Self::Saturated => "put off without an attempt: the endpoint has its hands full",
            Self::CircuitOpen => "put off without an attempt: the endpoint is known to be down",
        }
    }
}

/// What one HTTP request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// None for 2xx.
    pub failure: Option<FailureCode>,
    /// For people: at which step it failed and why, in one bounded line without secrets.
    pub detail: Option<String>,
    /// The answer's status, where one came.
    pub status: Option<u16>,
    /// As much of the answer's body as is kept.
    pub response_body: String,
    /// From the request's start to the body's end.
    pub duration: Duration,
    /// How long the endpoint asked to be left alone.
    pub retry_after: Option<Duration>,
    /// When it ended, Unix milliseconds.
    pub ended_at_ms: i64,
    /// Those of the request's headers that nobody could know from the delivery: signatures, their time.
    pub proofs: Vec<(&'static str, String)>,
}

impl Attempt {
    /// What the endpoint's limits go by.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome { failure: self.failure, status: self.status, retry_after: self.retry_after }
    }
}

/// What an attempt says of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// None for 2xx.
    pub failure: Option<FailureCode>,
    /// The answer's status, where one came.
    pub status: Option<u16>,
    /// How long the endpoint asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Outcome {
    /// Whether it is a sign that the endpoint has more to do than it can.
    #[must_use]
    pub fn is_overload(self) -> bool {
        self.failure == Some(FailureCode::Timeout) || matches!(self.status, Some(429 | 502 | 503 | 504))
    }
}
