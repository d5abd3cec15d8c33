//! The next step at an endpoint.

use tokio::time::Instant;

use crate::delivery::Deferral;

/// The next step at an endpoint.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Send this delivery, and then call [`super::Endpoint::finished`].
    Start(T, Started),
    /// Defer these deliveries.
    Defer(Vec<T>, Deferral),
    /// Ask again at this time.
    Later(Instant),
    /// There is nothing to do until something changes.
    Nothing,
}

/// A request in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub(super) at: Instant,
    pub(super) is_probe: bool,
    pub(super) moves: u32,
}
