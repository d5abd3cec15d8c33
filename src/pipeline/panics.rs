//! A panic in the handling of one record affects only that record, never the process.
//!
//! The handling is tried once more, because the cause may be temporary. After the second panic the record goes to the
//! dead-letter topic as `malformed`, with [`detail`].

use crate::detail::Detail;
use crate::metrics;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::{FutureExt as _, TryFutureExt as _};

/// The detail of the dead letter.
#[must_use]
pub fn detail() -> Detail {
    Detail::new("handling it panicked")
}

/// The handling panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Runs `handle`.
///
/// # Errors
/// Fails if it panics.
pub fn once<T>(handle: impl FnOnce() -> T) -> Result<T, Panicked> {
    // A panic may leave values half changed. They are discarded with the record, so nobody sees them.
    catch_unwind(AssertUnwindSafe(handle)).map_err(|_| counted())
}

/// Runs `handle`, and once more if it panics.
///
/// # Errors
/// Fails if it panics twice.
pub fn twice<T>(mut handle: impl FnMut() -> T) -> Result<T, Panicked> {
    once(&mut handle).or_else(|Panicked| {
        tracing::error!("handling a record panicked, trying once more");
        once(&mut handle)
    })
}

/// Runs `handling` to its end.
///
/// # Errors
/// Fails if it panics.
pub fn caught<F: Future>(handling: F) -> impl Future<Output = Result<F::Output, Panicked>> {
    // An async function would store `handling` twice: as its argument, and as the future that it awaits.
    AssertUnwindSafe(handling).catch_unwind().map_err(|_| counted())
}

fn counted() -> Panicked {
    metrics::PANICS.increment();
    Panicked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handling_is_tried_again_after_one_panic_and_fails_after_two() {
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
