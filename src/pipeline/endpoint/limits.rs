//! The limits that the settings give each endpoint.

use std::time::Duration;

use crate::config;

/// The limits of each endpoint.
#[derive(Debug, Clone)]
pub struct EndpointLimits {
    /// `delivery.endpoint_in_flight_max`
    pub in_flight_max: usize,
    /// `delivery.endpoint_queue_max`
    pub queue_max: usize,
    /// `delivery.endpoint_wait_max`
    pub wait_max: Duration,
    /// `delivery.timeout`
    pub attempt_max: Duration,
    /// `delivery.breaker`
    pub breaker: config::Breaker,
}

impl EndpointLimits {
    /// The limits that the settings give.
    #[must_use]
    pub fn new(settings: &config::DeliverySettings) -> Self {
        Self {
            in_flight_max: settings.endpoint_in_flight_max,
            queue_max: settings.endpoint_queue_max,
            wait_max: settings.endpoint_wait_max,
            attempt_max: settings.timeout,
            breaker: settings.breaker.clone(),
        }
    }

    /// The longest that a delivery waits in a lane. It blocks the commit of its partition, so it waits no longer than
    /// the attempt that it waits for may take.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        self.attempt_max.max(self.wait_max)
    }
}
