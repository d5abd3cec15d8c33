//! The fixtures of the tests: a `World` per test (topics, keys, a receiver), workers as processes, and faulty peers.

pub mod acl;
pub mod brokers;
pub mod browser;
pub mod claims;
pub mod endpoint;
pub mod odd;
pub mod prometheus;
pub mod proxy;
pub mod receiver;
pub mod redis_nodes;
pub mod secured_kafka;
pub mod service;
pub mod worker;
pub mod world;

use std::time::{Duration, Instant};

pub use receiver::Reply;
pub use world::World;

/// The time after which a test stops waiting and fails.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Reports on stderr that something isn't tested. `println!` would not do: the output of a test that passes is hidden.
pub fn skipped(reason: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Polls `condition` until it returns a value. Panics after `PATIENCE`; `what` describes the condition in the panic.
pub async fn eventually<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, condition).await
}

/// Like [`eventually`], and panics after `patience`.
pub async fn eventually_within<T>(patience: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "this did not happen within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
