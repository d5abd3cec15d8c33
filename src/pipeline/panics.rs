//! A panic in one record's handling decides that record's fate, not the process's.
//!
//! Whatever panics is tried once more: the cause may have been the moment. After the second time the record goes to the
//! dead-letter topic as `malformed`, with [`DETAIL`].

use crate::metrics;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt as _;

/// What a dead letter says of it.
pub const DETAIL: &str = "handling it panicked";

/// The handling panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Runs `handle`, once more if it panics; an error if it panics again.
pub fn twice<T>(mut handle: impl FnMut() -> T) -> Result<T, Panicked> {
    // What a panic leaves half done is thrown away with the record: nothing of it is looked at again.
    let mut caught = || catch_unwind(AssertUnwindSafe(&mut handle)).map_err(|_| Panicked);
    caught().or_else(|Panicked| {
        tracing::error!("handling a record panicked; it is tried once more");
        caught()
    })
}

/// Runs `handling` to its end; an error if it panics.
pub async fn caught<F: Future>(handling: F) -> Result<F::Output, Panicked> {
    AssertUnwindSafe(handling).catch_unwind().await.map_err(|_| {
        metrics::PANICS.increment();
        Panicked
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handling_that_panics_once_is_tried_again_and_twice_is_an_error() {
        let mut tries = 0;
        let result = twice(|| {
            tries += 1;
            assert!(tries > 1, "the first time");
            tries
        });
        assert_eq!(result, Ok(2));
        assert_eq!(twice(|| -> u32 { panic!("every time") }), Err(Panicked));
    }

    #[tokio::test]
    async fn a_panic_in_a_task_is_caught() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        assert_eq!(caught(async { panic!("on purpose") }).await, Err::<(), _>(Panicked));
    }
}
