//! What the handling of one part of a record holds: its offset, its place in a drain, its permits.

use std::sync::Arc;

use super::parking::{Parked, Parking};
use super::permits::Permits;
use super::receipt::{InFlight, Receipt};

/// One part of a record that is being handled. Dropping it settles nothing: the offset stays.
#[derive(Debug)]
pub struct Handling {
    /// The record.
    pub receipt: Arc<Receipt>,
    in_flight: Option<InFlight>,
    permits: Option<Permits>,
    parking: Arc<Parking>,
    parked: Option<Parked>,
}

impl Handling {
    /// Begins; None while its partition drains, or isn't ours any more: then nothing may be started.
    #[must_use]
    pub fn start(receipt: Arc<Receipt>, permits: Permits, parking: Arc<Parking>) -> Option<Self> {
        let in_flight = Some(receipt.start()?);
        Some(Self { receipt, in_flight, permits: Some(permits), parking, parked: None })
    }

    /// What it waits for may take long: its permits go back to the others, and it counts as `bytes` that are parked.
    pub fn park(&mut self, bytes: usize) {
        self.permits = None;
        if self.parked.is_none() {
            self.parked = Some(self.parking.park(bytes));
        }
    }

    /// Nothing is under way for now, so a drain needn't wait for it. [`Handling::resume`] comes before the next try.
    pub fn pause(&mut self) {
        self.in_flight = None;
    }

    /// Goes on after a pause; false if its partition drains or isn't ours any more: then it belongs to the next owner.
    pub fn resume(&mut self) -> bool {
        if self.in_flight.is_none() {
            self.in_flight = self.receipt.start();
        }
        self.in_flight.is_some()
    }
}
