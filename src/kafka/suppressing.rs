//! Suppresses errors of clients that come again and again. While a broker is away, each client reports it several times a
//! second, and the sentence that matters would be lost among them.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode;

/// How often an error is logged, whichever client reports it.
const INTERVAL: Duration = Duration::from_secs(30);

static SUPPRESSING: LazyLock<Mutex<Suppressing>> = LazyLock::new(Mutex::default);

/// Whether to log an error with this code now. Returns how many with the same code were suppressed since the last one was
/// logged. None if this one is suppressed.
pub(super) fn admit(code: Option<RDKafkaErrorCode>) -> Option<u64> {
    SUPPRESSING.lock().unwrap_or_else(PoisonError::into_inner).admit(code, Instant::now())
}

/// When each error was last logged, by the number of its code, and how many were suppressed since. There are about 200
/// codes.
#[derive(Debug, Default)]
struct Suppressing(HashMap<Option<i32>, (Instant, u64)>);

impl Suppressing {
    fn admit(&mut self, code: Option<RDKafkaErrorCode>, now: Instant) -> Option<u64> {
        let code = code.map(|code| code as i32);
        match self.0.get_mut(&code) {
            Some((logged, suppressed)) if now.saturating_duration_since(*logged) < INTERVAL => {
                *suppressed += 1;
                None
            }
            before => {
                let suppressed = before.map_or(0, |(_, suppressed)| *suppressed);
                self.0.insert(code, (now, 0));
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
        let [away, refused] = [RDKafkaErrorCode::AllBrokersDown, RDKafkaErrorCode::Authentication].map(Some);
        assert_eq!(suppressing.admit(away, began), Some(0));
        for at in 1..=9 {
            assert_eq!(suppressing.admit(away, began + INTERVAL / 10 * at), None);
        }
        assert_eq!(suppressing.admit(refused, began), Some(0), "another error is another matter");
        assert_eq!(suppressing.admit(away, began + INTERVAL), Some(9));
        assert_eq!(suppressing.admit(away, began + INTERVAL * 2), Some(0));
    }
}
