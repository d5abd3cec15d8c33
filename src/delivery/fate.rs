//! Decides the fate of a delivery after an attempt, and where a deferral goes. The functions are pure: they read no
//! clock and change nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Attempt, Delivery};
use crate::clock::millis;
use crate::config;
use crate::detail::Detail;
use crate::schedule::Schedule;

/// Why a delivery or a record became a dead letter (`docs/reference.md`, section "Dead-letter reasons").
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DeadReason {
    /// The last of `delivery.attempts_max` attempts failed.
    Exhausted,
    /// The delivery, or its next attempt, came later than `delivery.age_max` after its event.
    Expired,
    /// The record can't be read, or handling it panicked twice.
    Malformed,
    /// The record, a part of it, or its payload is too large.
    TooLarge,
}

impl DeadReason {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::Exhausted, Self::Expired, Self::Malformed, Self::TooLarge];

    /// Returns the reason with this name.
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

/// The fate of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The endpoint accepted the delivery.
    Delivered,
    /// The delivery waits in a retry tier.
    Retry {
        /// The number of the tier, from 1.
        tier: u32,
        /// The time before which the delivery is not sent, in Unix milliseconds.
        due_at_ms: i64,
    },
    /// The delivery becomes a dead letter.
    Dead(DeadReason),
    /// Nobody wants the delivery any more, because its webhook is deleted or inactive.
    Dropped,
}

impl Fate {
    /// The name of the fate in traces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry { .. } => "retry",
            Self::Dead(_) => "dead",
            Self::Dropped => "dropped",
        }
    }

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
    /// The webhook was deleted.
    WebhookGone,
    /// The webhook is paused or disabled. The event is recorded as missed.
    WebhookInactive,
    /// A redelivery replaces the delivery.
    Replaced,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::WebhookGone, Self::WebhookInactive, Self::Replaced];

    /// The value of the metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebhookGone => "webhook_gone",
            Self::WebhookInactive => "webhook_inactive",
            Self::Replaced => "replaced",
        }
    }
}

/// The status 410 Gone: the endpoint is gone for good (RFC 9110, section 15.5.11).
pub const GONE: u16 = 410;

/// The settings that decide a fate.
#[derive(Debug, Clone)]
pub struct FatePolicy {
    /// The tiers and their delays.
    pub schedule: Schedule,
    /// `delivery.age_max`
    pub age_max: Duration,
    /// `delivery.breaker.open_max`. A deferred delivery comes up at least as often as its endpoint is probed.
    pub deferral_max: Duration,
}

impl FatePolicy {
    /// Reads the policy from the settings.
    #[must_use]
    pub fn new(delivery: &config::DeliverySettings) -> Self {
        Self { schedule: Schedule::new(delivery), age_max: delivery.age_max, deferral_max: delivery.breaker.open_max }
    }

    /// Decides the fate of `delivery` after `attempt`, which is attempt number `delivery.attempts + 1`. `jitter` is a
    /// random number from 0 to 1.
    #[must_use]
    pub fn after_attempt(&self, delivery: &Delivery, attempt: &Attempt, jitter: f64) -> Fate {
        if attempt.failure.is_none() {
            return Fate::Delivered;
        }
        let attempts_made = delivery.attempts.saturating_add(1);
        let Some(delay) = self.schedule.delay(attempts_made, jitter) else { return Fate::Dead(DeadReason::Exhausted) };
        // A Retry-After may lengthen the wait. It never shortens it.
        let requested = attempt.retry_after.unwrap_or_default();
        let due_at_ms = attempt.ended_at_ms.saturating_add(millis(delay.max(requested)));
        if due_at_ms.saturating_sub(delivery.first_seen_at_ms) > millis(self.age_max) {
            return Fate::Dead(DeadReason::Expired);
        }
        Fate::Retry { tier: attempts_made, due_at_ms }
    }

    /// Returns why a delivery that comes up at `now_ms` is too old to be sent, or `None` if it is within
    /// `delivery.age_max`.
    #[must_use]
    pub fn too_old(&self, delivery: &Delivery, now_ms: i64) -> Option<Detail> {
        let age_ms = now_ms.saturating_sub(delivery.first_seen_at_ms);
        (age_ms > millis(self.age_max)).then(|| {
            let allowed = humantime::format_duration(self.age_max).to_string();
            let age = Detail::new("the delivery came up ").number(age_ms / 1_000).text(" s after its event");
            age.text("; delivery.age_max allows ").value(&allowed)
        })
    }

    /// Decides the fate of `delivery` when it is deferred. Its endpoint backs off for `backs_off_for`, or works but is
    /// busy if that is `None`. `draw` is a random number from 0 to 1.
    ///
    /// The delivery waits exactly as long as the shortest wait of its tier. The deferrals of a tier therefore come due
    /// in the order in which they were written. The window can read a backlog of any size as it comes due, and hands no
    /// deferral off again for lack of room.
    ///
    /// **The endpoint backs off.** The delivery goes to the longest tier whose wait ends by the time the endpoint may
    /// be tried again. The n-th deferral goes at least to tier n, or to the longest tier within `deferral_max` if tier
    /// n is longer. An endpoint that stays down therefore costs few writes. One that returns gets its backlog within
    /// `deferral_max`, unless it asked for a longer pause.
    ///
    /// **The endpoint is busy.** The n-th deferral goes to a random one of the first n tiers. Tiers longer than
    /// `deferral_max` are left out. Without the random choice, deliveries that came together would return together and
    /// be deferred together. A small burst is over soon, and a large one spreads out. Ethernet backs off in this way
    /// after a collision (IEEE 802.3, section 4.2.3.2.5).
    #[must_use]
    pub fn after_deferral(&self, delivery: &Delivery, backs_off_for: Option<Duration>, now_ms: i64, draw: f64) -> Fate {
        let longest = self.schedule.tier_for(self.deferral_max);
        let tier = match backs_off_for {
            Some(wait) => self.schedule.tier_for(wait).max(delivery.deferrals.saturating_add(1).min(longest)),
            None => {
                let tiers = delivery.deferrals.saturating_add(1).min(longest);
                1 + ((f64::from(tiers) * draw) as u32).min(tiers - 1)
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
            is_sent: true,
            proofs: Vec::new(),
            custom_headers: Vec::new(),
        }
    }

    #[test]
    fn a_failed_attempt_goes_to_its_tier_and_the_last_one_is_exhausted() {
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
    fn each_deferral_of_an_endpoint_that_backs_off_waits_longer_up_to_a_bound() {
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
        assert_eq!(seconds(9, 12 * 3_600), (7, 43_200), "a requested pause has its own bound");
    }

    #[test]
    fn a_deferral_before_the_only_attempt_goes_to_tier_1() {
        let mut settings = Config::built_in().delivery;
        settings.attempts_max = 1;
        let policy = FatePolicy::new(&settings);
        let delivery = Delivery { first_seen_at_ms: 0, ..sample() };
        let fate = policy.after_deferral(&delivery, Some(Duration::from_secs(600)), 0, 0.0);
        assert_eq!(fate, Fate::Retry { tier: 1, due_at_ms: 5_000 });
        assert_eq!(policy.after_attempt(&delivery, &failed(None), 0.0), Fate::Dead(DeadReason::Exhausted));
    }

    #[test]
    fn deferrals_of_a_busy_endpoint_spread_over_one_more_tier_each_time() {
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
