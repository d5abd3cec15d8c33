//! The partitions that are assigned to this process.

use std::sync::{Arc, Mutex, Weak};

use super::partition::Partition;

/// The live partitions of both consumer groups.
#[derive(Debug, Default)]
pub struct Assigned(Mutex<Vec<Weak<Partition>>>);

impl Assigned {
    /// Adds a partition. It stays in the list until it is closed or dropped.
    pub fn add(&self, partition: &Arc<Partition>) {
        let mut all = self.0.lock().expect("no code panics while it holds this lock");
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(partition));
    }

    /// The partitions, sorted by topic and number.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Partition>> {
        let all = self.0.lock().expect("no code panics while it holds this lock");
        let mut live: Vec<Arc<Partition>> =
            all.iter().filter_map(Weak::upgrade).filter(|one| !one.is_closed()).collect();
        live.sort_by(|one, other| (&one.topic, one.number).cmp(&(&other.topic, other.number)));
        live
    }
}
