//! The wait for the lease while another replay runs.

use std::time::Duration;

use crate::cli::Failure;
use crate::cli::output::note;
use crate::store::lease::{Lease, LeaseAnswer};

/// The wait between two tries to get the lease while another replay runs.
const LEASE_WAIT: Duration = Duration::from_millis(500);

/// The name of this process as the holder of the lease. A replay that waits for the lease prints it.
pub(super) fn lease_holder() -> String {
    format!("process {} on {}", std::process::id(), crate::worker::hostname())
}

/// Waits until no other replay runs. Cancel safe.
pub(super) async fn acquire(lease: &Lease) -> Result<(), Failure> {
    let mut is_announced = false;
    loop {
        match lease.ask().await? {
            LeaseAnswer::Ours => return Ok(()),
            LeaseAnswer::Theirs(who) if !is_announced => {
                note(&format!("another replay is running ({who}); waiting for it to end"));
                is_announced = true;
            }
            LeaseAnswer::Theirs(_) => {}
        }
        tokio::time::sleep(LEASE_WAIT).await;
    }
}
