//! What becomes of a delivery after an attempt, or when it is put off: pure decisions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Attempt, Delivery, millis};
use crate::schedule::Schedule;

/// Why a delivery is given up (contract section 4).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DeadReason {
    /// All attempts failed.
    Exhausted,
    /// It would be older than `delivery.age_max`.
    Expired,
    /// Not a message of contract section 2.
    Malformed,
    /// Over a bound in bytes.
    TooLarge,
}

impl DeadReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Exhausted, Self::Expired, Self::Malformed, Self::TooLarge];

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
        }
    }
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The endpoint has it.
    Delivered,
    /// It waits in tier `tier` until `due_at_ms` (Unix milliseconds).
    Retry {
        /// 1 to `attempts_max` − 1.
        tier: u32,
        /// Never sent before.
        due_at_ms: i64,
    },
    /// It is given up.
    Dead(DeadReason),
    /// Its webhook is gone: nothing more becomes of it.
    Dropped,
}

/// 410 Gone: the endpoint is no more and doesn't want to be asked again (RFC 9110, section 15.5.11).
pub const GONE: u16 = 410;

/// The bounds that decide a fate.
#[derive(Debug, Clone)]
pub struct FatePolicy {
    /// Delays and tiers.
    pub schedule: Schedule,
    /// `delivery.age_max`
    pub age_max: Duration,
    /// `delivery.retry_after_max`
    pub retry_after_max: Duration,
}

impl FatePolicy {
    /// What becomes of `delivery` after `attempt`, its number `delivery.attempts + 1`.
    /// `jitter` is drawn from 0 to 1.
    #[must_use]
    pub fn after_attempt(&self, delivery: &Delivery, attempt: &Attempt, jitter: f64) -> Fate {
        if attempt.failure.is_none() {
            return Fate::Delivered;
        }
        // 410 Gone disables the webhook (contract section 3), and that drops what is pending for it (section 4).
        if attempt.status == Some(GONE) {
            return Fate::Dropped;
        }
        let made = delivery.attempts + 1;
        let Some(delay) = self.schedule.delay(made, jitter) else { return Fate::Dead(DeadReason::Exhausted) };
        // A Retry-After may lengthen the wait, never shorten it (contract section 3).
        let asked = attempt.retry_after.unwrap_or_default().min(self.retry_after_max);
        let due_at_ms = attempt.ended_at_ms.saturating_add(millis(delay.max(asked)));
        if due_at_ms - delivery.first_seen_at_ms > millis(self.age_max) {
            return Fate::Dead(DeadReason::Expired);
        }
        Fate::Retry { tier: made, due_at_ms }
    }

    /// What becomes of `delivery` when it is put off without an attempt because its endpoint won't be asked for
    /// `wait`. Each deferral of a delivery waits at least as long as the schedule's delay of that number, so that an
    /// endpoint that stays away costs a handful of writes. `spread` is drawn from 0 to 1 and only lengthens, by
    /// up to [`SPREAD`]: what was put off together doesn't come back together.
    #[must_use]
    pub fn after_deferral(&self, delivery: &Delivery, wait: Duration, now_ms: i64, spread: f64) -> Fate {
        let number = (delivery.deferrals + 1).min(self.schedule.tiers());
        let wait = wait.max(self.schedule.shortest(number).unwrap_or_default());
        let wait = wait + wait.mul_f64(SPREAD * spread.clamp(0.0, 1.0));
        let due_at_ms = now_ms.saturating_add(millis(wait));
        if self.schedule.tiers() == 0 {
            return Fate::Dead(DeadReason::Exhausted);
        }
        if due_at_ms - delivery.first_seen_at_ms > millis(self.age_max) {
            return Fate::Dead(DeadReason::Expired);
        }
        Fate::Retry { tier: self.schedule.tier_for(wait), due_at_ms }
    }
}

/// Share of its wait by which a deferral may be lengthened.
pub const SPREAD: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::super::FailureCode;
    use super::super::tests::sample;
    use super::*;
    use crate::config::Config;

    fn policy() -> FatePolicy {
        let delivery = Config::built_in().delivery;
        FatePolicy {
            schedule: Schedule::new(&delivery),
            age_max: delivery.age_max,
            retry_after_max: delivery.retry_after_max,
        }
    }

    fn failed(retry_after: Option<Duration>) -> Attempt {
        Attempt {
            failure: Some(FailureCode::Status),
            status: Some(500),
            response_body: String::new(),
            duration: Duration::ZERO,
            retry_after,
            ended_at_ms: 2_000,
            proofs: Vec::new(),
        }
    }

    #[test]
    fn a_failed_attempt_waits_in_its_tier_and_the_last_one_dies() {
        let mut delivery = sample();
        assert_eq!(policy().after_attempt(&delivery, &failed(None), 0.0), Fate::Retry { tier: 1, due_at_ms: 7_000 });
        delivery.attempts = 7;
        assert_eq!(policy().after_attempt(&delivery, &failed(None), 0.0), Fate::Dead(DeadReason::Exhausted));
    }

    #[test]
    fn retry_after_lengthens_a_wait_never_shortens_it_and_is_capped() {
        let due = |seconds| policy().after_attempt(&sample(), &failed(Some(Duration::from_secs(seconds))), 0.0);
        assert_eq!(due(1), Fate::Retry { tier: 1, due_at_ms: 7_000 });
        assert_eq!(due(60), Fate::Retry { tier: 1, due_at_ms: 62_000 });
        assert_eq!(due(u64::MAX / 2_000), Fate::Retry { tier: 1, due_at_ms: 2_000 + 12 * 3_600_000 });
    }

    #[test]
    fn a_delivery_that_would_be_too_old_expires() {
        let mut delivery = sample();
        delivery.first_seen_at_ms = 2_000 - 72 * 3_600_000;
        assert_eq!(policy().after_attempt(&delivery, &failed(None), 0.0), Fate::Dead(DeadReason::Expired));
        assert_eq!(
            policy().after_deferral(&delivery, Duration::from_secs(1), 2_000, 0.0),
            Fate::Dead(DeadReason::Expired)
        );
    }

    #[test]
    fn each_deferral_waits_longer_so_that_an_endpoint_that_stays_away_costs_few_writes() {
        let policy = policy();
        let mut delivery = Delivery { deferrals: 0, first_seen_at_ms: 0, ..sample() };
        let (mut now_ms, mut writes_in_the_first_hour) = (0, 0);
        while now_ms < 3_600_000 {
            // The breaker alone would ask again every 30 seconds.
            let fate = policy.after_deferral(&delivery, Duration::from_secs(30), now_ms, 0.0);
            let Fate::Retry { due_at_ms, .. } = fate else { panic!("{fate:?}") };
            assert!(due_at_ms >= now_ms + 30_000);
            now_ms = due_at_ms;
            delivery.deferrals += 1;
            writes_in_the_first_hour += 1;
        }
        assert!(writes_in_the_first_hour <= 8, "{writes_in_the_first_hour}");
    }

    #[test]
    fn an_endpoint_that_is_gone_gets_nothing_more() {
        let attempt = Attempt { status: Some(GONE), ..failed(None) };
        assert_eq!(policy().after_attempt(&sample(), &attempt, 0.0), Fate::Dropped);
    }
}
