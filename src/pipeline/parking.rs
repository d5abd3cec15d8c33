//! Parked deliveries: they wait for something that may take very long, such as a topic that can't be written, or a
//! webhook that this version can't read.
//!
//! A parked delivery has given its permits back, so that others go on, and it keeps its offset open. The bytes of
//! parked deliveries are bounded for each consumer group. A group whose parking is full reads no further, and the other
//! group goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The parked deliveries of one consumer group.
#[derive(Debug)]
pub struct Parking {
    bytes: AtomicUsize,
    max: usize,
    freed: Notify,
}

impl Parking {
    /// Creates a parking for `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), max, freed: Notify::new() })
    }

    /// Parks a delivery of `bytes`. This never waits, because an open delivery must always be able to give its permits
    /// back. The permits bound the bytes by which the limit may be exceeded.
    #[must_use]
    pub fn park(self: &Arc<Self>, bytes: usize) -> Parked {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Parked { parking: self.clone(), bytes }
    }

    /// Waits until there is room. Callers wait here before they begin with another record. Cancel safe.
    pub async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            if self.bytes.load(Ordering::Relaxed) < self.max {
                return;
            }
            freed.await;
        }
    }
}

/// A parked delivery. Dropping it frees its bytes.
#[derive(Debug)]
pub struct Parked {
    parking: Arc<Parking>,
    bytes: usize,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.parking.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.parking.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_parking_has_room_again_when_a_delivery_leaves() {
        let parking = Parking::new(100);
        let (first, _second) = (parking.park(60), parking.park(60));
        let wait = tokio::time::timeout(Duration::from_secs(1), parking.room());
        assert!(wait.await.is_err(), "it is full");
        let waiting = tokio::spawn({
            let parking = parking.clone();
            async move { parking.room().await }
        });
        tokio::task::yield_now().await;
        drop(first);
        waiting.await.unwrap();
        assert_eq!(parking.bytes.load(Ordering::Relaxed), 60);
    }
}
