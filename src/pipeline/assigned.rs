//! The partitions that are assigned to this process.

use std::sync::{Arc, Mutex, Weak};

use super::partition::Partition;

/// The live partitions of both consumer groups.
#[derive(Debug, Default)]
pub struct Assigned(Mutex<Vec<Weak<Partition>>>);

impl Assigned {
    /// Adds a partition. It leaves by being closed or dropped.
    pub fn add(&self, partition: &Arc<Partition>) {
        let mut all = self.0.lock().expect("nothing panics while it holds the list");
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(partition));
    }

    /// The partitions, by topic and number.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Partition>> {
        let all = self.0.lock().expect("nothing panics while it holds the list");
        let mut live: Vec<Arc<Partition>> =
            all.iter().filter_map(Weak::upgrade).filter(|one| !one.is_closed()).collect();
        live.sort_by(|one, other| (&one.topic, one.number).cmp(&(&other.topic, other.number)));
        live
    }
}
