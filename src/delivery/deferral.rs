//! Deferral: a delivery goes to a retry tier without an attempt.

use std::time::Duration;

use super::FailureCode;

/// Why deliveries are deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deferral {
    /// `saturated` or `circuit_open`.
    pub why: FailureCode,
    /// How long the endpoint backs off; None for an endpoint that works and is busy.
    pub backs_off_for: Option<Duration>,
}

impl Deferral {
    /// This version can't read the webhook. It is looked at again ever less often, like an endpoint that stays away.
    pub const UNSUPPORTED: Self = Self { why: FailureCode::Saturated, backs_off_for: Some(Duration::ZERO) };

    /// The endpoint works and is busy.
    pub const SATURATED: Self = Self { why: FailureCode::Saturated, backs_off_for: None };
}
