//! The handling of one part of a record. It holds the offset and the permits, and a drain waits for it.

use std::sync::Arc;

use super::parking::{Parked, Parking};
use super::permits::Permits;
use super::receipt::{InFlight, Receipt};
use crate::webhook::WebhookId;

/// One part of a record that is being handled. Dropping it settles nothing, so the offset stays open.
#[derive(Debug)]
pub struct Handling {
    /// The record.
    pub receipt: Arc<Receipt>,
    /// The webhook whose delivery became a dead letter, if it is told.
    pub died: Option<WebhookId>,
    in_flight: Option<InFlight>,
    permits: Option<Permits>,
    parking: Arc<Parking>,
    parked: Option<Parked>,
}

impl Handling {
    /// Begins the handling. Returns None if the partition drains or is no longer ours: then nothing may be started.
    #[must_use]
    pub fn start(receipt: Arc<Receipt>, permits: Permits, parking: Arc<Parking>) -> Option<Self> {
        let in_flight = Some(receipt.start()?);
        Some(Self { receipt, died: None, in_flight, permits: Some(permits), parking, parked: None })
    }

    /// Parks the delivery with `bytes`, because it may wait for very long. Its permits are given back.
    pub fn park(&mut self, bytes: usize) {
        self.permits = None;
        if self.parked.is_none() {
            self.parked = Some(self.parking.park(bytes));
        }
    }

    /// Lets a drain go on without this handling, because nothing is under way. [`Handling::resume`] must be called
    /// before the next try.
    pub fn pause(&mut self) {
        self.in_flight = None;
    }

    /// Goes on after a pause. Returns false if the partition drains or is no longer ours: then the next owner handles
    /// the record.
    pub fn resume(&mut self) -> bool {
        if self.in_flight.is_none() {
            self.in_flight = self.receipt.start();
        }
        self.in_flight.is_some()
    }
}
