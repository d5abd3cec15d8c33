//! A deferral: the delivery goes to a retry tier without an attempt.

use std::time::Duration;

use super::FailureCode;

/// Why a delivery is deferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deferral {
    /// `saturated` or `circuit_open`.
    pub why: FailureCode,
    /// The time for which the endpoint backs off, or `None` if the endpoint works but is busy.
    pub backs_off_for: Option<Duration>,
}

impl Deferral {
    /// The webhook is unsupported. Its deliveries wait longer with each deferral, as if the endpoint were backing off.
    pub const UNSUPPORTED: Self = Self { why: FailureCode::Saturated, backs_off_for: Some(Duration::ZERO) };

    /// The webhook is paused, and its deliveries wait. They wait longer with each deferral.
    pub const HELD: Self = Self { why: FailureCode::Saturated, backs_off_for: Some(Duration::ZERO) };

    /// The endpoint works but is busy.
    pub const SATURATED: Self = Self { why: FailureCode::Saturated, backs_off_for: None };
}
