//! What every test stands on: a world of its own (topics, keys, a receiver) and workers as processes.

pub mod acl;
pub mod browser;
pub mod endpoint;
pub mod proxy;
pub mod receiver;
pub mod service;
pub mod worker;
pub mod world;

use std::time::{Duration, Instant};

pub use receiver::Reply;
pub use world::World;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Says loudly that something isn't tested; a test's own output would be kept from view when it passes.
pub fn skipped(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Waits until `condition` gives something; `what` says what was waited for.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
