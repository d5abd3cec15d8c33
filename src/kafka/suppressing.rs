//! Suppresses errors of clients that come again and again. While a broker is away, each client reports it several times a
//! second, and the sentence that matters would be lost among them.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;

/// How often an error is logged, whichever client reports it.
const INTERVAL: Duration = Duration::from_secs(30);

static SUPPRESSING: LazyLock<Mutex<Suppressing>> = LazyLock::new(Mutex::default);

/// Whether to log an error with this code now. Returns how many of its kind were suppressed since the last one was logged.
/// None if this one is suppressed. A refusal is another kind than a failure of the transport with the same code.
pub(super) fn admit(code: Option<RDKafkaErrorCode>, is_refusal: bool) -> Option<u64> {
    let kind = (code.map(|code| code as i32), is_refusal);
    SUPPRESSING.lock().unwrap_or_else(PoisonError::into_inner).admit(kind, Instant::now())
}

/// The number of an error's code, and whether the error is a broker's refusal.
type Kind = (Option<i32>, bool);

/// When each kind was last logged, and how many were suppressed since. There are about 200 codes.
#[derive(Debug, Default)]
struct Suppressing(HashMap<Kind, (Instant, u64)>);

impl Suppressing {
    fn admit(&mut self, kind: Kind, now: Instant) -> Option<u64> {
        match self.0.get_mut(&kind) {
            Some((logged, suppressed)) if now.saturating_duration_since(*logged) < INTERVAL => {
                *suppressed += 1;
                None
            }
            before => {
                let suppressed = before.map_or(0, |(_, suppressed)| *suppressed);
                self.0.insert(kind, (now, 0));
                Some(suppressed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_logged_once_in_each_interval_with_the_number_of_those_between() {
        let mut suppressing = Suppressing::default();
        let began = Instant::now();
        let [away, refused] = [(Some(-195), false), (Some(-195), true)];
        assert_eq!(suppressing.admit(away, began), Some(0));
        for at in 1..=9 {
            assert_eq!(suppressing.admit(away, began + INTERVAL / 10 * at), None);
        }
        assert_eq!(suppressing.admit(refused, began), Some(0), "another error is another matter");
        assert_eq!(suppressing.admit(away, began + INTERVAL), Some(9));
        assert_eq!(suppressing.admit(away, began + INTERVAL * 2), Some(0));
    }
}
