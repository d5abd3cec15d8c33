//! What becomes of a delivery after an attempt, or when it is put off: pure decisions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Attempt, Delivery};
use crate::clock::millis;
use crate::config;
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
        /// From 1 on.
        tier: u32,
        /// Never sent before.
        due_at_ms: i64,
    },
    /// It is given up.
    Dead(DeadReason),
    /// Its webhook is gone: nothing more becomes of it.
    Dropped,
}

impl Fate {
    /// When the next attempt is due, in Unix milliseconds; None if there is none.
    #[must_use]
    pub fn due_at_ms(self) -> Option<i64> {
        match self {
            Self::Retry { due_at_ms, .. } => Some(due_at_ms),
            Self::Delivered | Self::Dead(_) | Self::Dropped => None,
        }
    }
}

/// Why a delivery is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// Its webhook was deleted or is inactive.
    WebhookGone,
    /// A redelivery replaces it.
    Replaced,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Self; 2] = [Self::WebhookGone, Self::Replaced];

    /// The value of the metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebhookGone => "webhook_gone",
            Self::Replaced => "replaced",
        }
    }
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
    /// `delivery.breaker.open_max`: a delivery that is put off is looked at again as often as an endpoint is.
    pub deferral_max: Duration,
}

impl FatePolicy {
    /// As the settings ask for.
    #[must_use]
    pub fn new(delivery: &config::Delivery) -> Self {
        Self { schedule: Schedule::new(delivery), age_max: delivery.age_max, deferral_max: delivery.breaker.open_max }
    }

    /// What becomes of `delivery` after `attempt`, its number `delivery.attempts + 1`.
    /// `jitter` is drawn from 0 to 1.
    #[must_use]
    pub fn after_attempt(&self, delivery: &Delivery, attempt: &Attempt, jitter: f64) -> Fate {
        if attempt.failure.is_none() {
            return Fate::Delivered;
        }
        let made = delivery.attempts.saturating_add(1);
        let Some(delay) = self.schedule.delay(made, jitter) else { return Fate::Dead(DeadReason::Exhausted) };
        // A Retry-After may lengthen the wait. It never shortens it.
        let asked = attempt.retry_after.unwrap_or_default();
        let due_at_ms = attempt.ended_at_ms.saturating_add(millis(delay.max(asked)));
        if due_at_ms.saturating_sub(delivery.first_seen_at_ms) > millis(self.age_max) {
            return Fate::Dead(DeadReason::Expired);
        }
        Fate::Retry { tier: made, due_at_ms }
    }

    /// Why a delivery that comes up at `now_ms` isn't sent any more; None while it is within `delivery.age_max`.
    #[must_use]
    pub fn too_old(&self, delivery: &Delivery, now_ms: i64) -> Option<String> {
        let age_ms = now_ms.saturating_sub(delivery.first_seen_at_ms);
        (age_ms > millis(self.age_max)).then(|| {
            let allowed = humantime::format_duration(self.age_max);
            format!("it came up {} s after its event; delivery.age_max allows {allowed}", age_ms / 1_000)
        })
    }

    /// What becomes of `delivery` when it is put off without an attempt: because its endpoint is left alone for
    /// `left_alone`, or, where that is None, because it has its hands full.
    ///
    /// It waits exactly as long as a tier's shortest wait. So a tier is in the order in which its deferrals come due, and
    /// a backlog of any size is read as it comes due and written no more often than it is put off. That is the longest
    /// tier which is over when the endpoint is asked again; the n-th deferral waits as long as tier n at least, up to
    /// `deferral_max`, so that an endpoint that stays away costs a handful of writes, and one that comes back is given its
    /// backlog within `deferral_max`.
    ///
    /// What an endpoint that works hasn't taken in comes back in one of the first tiers, by `draw` from 0 to 1, of one more
    /// with each deferral (as Ethernet's stations do after a collision: IEEE 802.3, section 4.2.3.2.5): what came together
    /// would come back together, to be put off together; a small burst is over soon, and a large one spreads.
    #[must_use]
    pub fn after_deferral(&self, delivery: &Delivery, left_alone: Option<Duration>, now_ms: i64, draw: f64) -> Fate {
        let longest = self.schedule.tier_for(self.deferral_max);
        let tier = match left_alone {
            Some(wait) => self.schedule.tier_for(wait).max(delivery.deferrals.saturating_add(1).min(longest)),
            None => {
                let among = delivery.deferrals.saturating_add(1).min(longest);
                1 + ((f64::from(among) * draw) as u32).min(among - 1)
            }
        };
        let Some(wait) = self.schedule.shortest(tier) else { return Fate::Dead(DeadReason::Exhausted) };
        let due_at_ms = now_ms.saturating_add(millis(wait));
        if due_at_ms.saturating_sub(delivery.first_seen_at_ms) > millis(self.age_max) {
            return Fate::Dead(DeadReason::Expired);
        }
        Fate::Retry { tier, due_at_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::super::FailureCode;
    use super::super::tests::sample;
    use super::*;
    use crate::config::Config;

    fn policy() -> FatePolicy {
        FatePolicy::new(&Config::built_in().delivery)
    }

    fn failed(retry_after: Option<Duration>) -> Attempt {
        Attempt {
            failure: Some(FailureCode::Status),
            detail: None,
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
    fn a_retry_after_lengthens_a_wait_and_never_shortens_it() {
        let due = |seconds| policy().after_attempt(&sample(), &failed(Some(Duration::from_secs(seconds))), 0.0);
        assert_eq!(due(1), Fate::Retry { tier: 1, due_at_ms: 7_000 });
        assert_eq!(due(60), Fate::Retry { tier: 1, due_at_ms: 62_000 });
    }

    #[test]
    fn a_delivery_that_would_be_too_old_expires() {
        let mut delivery = sample();
        delivery.first_seen_at_ms = 2_000 - 72 * 3_600_000;
        assert_eq!(policy().after_attempt(&delivery, &failed(None), 0.0), Fate::Dead(DeadReason::Expired));
        assert_eq!(
            policy().after_deferral(&delivery, Some(Duration::from_secs(1)), 2_000, 0.0),
            Fate::Dead(DeadReason::Expired)
        );
    }

    #[test]
    fn a_deferral_waits_for_the_longest_tier_that_fits_and_each_longer_up_to_a_bound() {
        let seconds = |deferrals, wait_s| {
            let delivery = Delivery { deferrals, first_seen_at_ms: 0, ..sample() };
            match policy().after_deferral(&delivery, Some(Duration::from_secs(wait_s)), 0, 0.9) {
                Fate::Retry { tier, due_at_ms } => (tier, due_at_ms / 1_000),
                fate => panic!("{fate:?}"),
            }
        };
        assert_eq!(seconds(0, 1), (1, 5));
        assert_eq!(seconds(0, 30), (2, 30));
        assert_eq!(seconds(0, 179), (2, 30));
        let growing: Vec<(u32, i64)> = (0..6).map(|deferrals| seconds(deferrals, 30)).collect();
        assert_eq!(growing, [(2, 30), (2, 30), (3, 180), (4, 1_080), (4, 1_080), (4, 1_080)]);
        assert_eq!(seconds(9, 12 * 3_600), (7, 43_200), "what the endpoint asked for has no other bound");
    }

    #[test]
    fn what_is_put_off_before_its_only_attempt_waits_for_it() {
        let mut settings = Config::built_in().delivery;
        settings.attempts_max = 1;
        let policy = FatePolicy::new(&settings);
        let delivery = Delivery { first_seen_at_ms: 0, ..sample() };
        let fate = policy.after_deferral(&delivery, Some(Duration::from_secs(600)), 0, 0.0);
        assert_eq!(fate, Fate::Retry { tier: 1, due_at_ms: 5_000 });
        assert_eq!(policy.after_attempt(&delivery, &failed(None), 0.0), Fate::Dead(DeadReason::Exhausted));
    }

    #[test]
    fn what_a_busy_endpoint_has_not_taken_in_comes_back_soon_and_spreads_the_longer_the_wider() {
        let tiers = |deferrals| {
            let delivery = Delivery { deferrals, first_seen_at_ms: 0, ..sample() };
            [0.0, 0.3, 0.6, 0.9, 1.0].map(|draw| match policy().after_deferral(&delivery, None, 0, draw) {
                Fate::Retry { tier, .. } => tier,
                fate => panic!("{fate:?}"),
            })
        };
        assert_eq!(tiers(0), [1, 1, 1, 1, 1]);
        assert_eq!(tiers(1), [1, 1, 2, 2, 2]);
        assert_eq!(tiers(9), [1, 2, 3, 4, 4]);
    }
}
