//! Where deliveries wait for something that may take very long: a topic that refuses to be written, a webhook that this
//! version can't read.
//!
//! A parked delivery has given its permit back, so that it holds up no other; it still holds its offset. What bounds
//! parked deliveries is their bytes, per consumer group: a group with a full car park reads no further, and the other
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
    /// With room for `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), max, freed: Notify::new() })
    }

    /// Parks `bytes`. Never waits: what is open already must be able to leave its permit, and it is bounded itself.
    #[must_use]
    pub fn park(self: &Arc<Self>, bytes: usize) -> Parked {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Parked { parking: self.clone(), bytes }
    }

    /// Waits until there is room, before another record is begun. Cancel safe.
    pub async fn room(&self) {
        loop {
            let freed = self.freed.notified();
            if self.bytes.load(Ordering::Relaxed) < self.max {
                return;
            }
            freed.await;
        }
    }

    /// Bytes that are parked.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A parked delivery. It leaves when this is dropped.
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
    async fn a_full_car_park_has_room_again_when_a_delivery_leaves() {
        let parking = Parking::new(100);
        let (one, _other) = (parking.park(60), parking.park(60));
        let wait = tokio::time::timeout(Duration::from_secs(1), parking.room());
        assert!(wait.await.is_err(), "it is full");
        let waiting = tokio::spawn({
            let parking = parking.clone();
            async move { parking.room().await }
        });
        tokio::task::yield_now().await;
        drop(one);
        waiting.await.unwrap();
        assert_eq!(parking.bytes(), 60);
    }
}
