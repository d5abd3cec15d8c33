//! One event for one webhook, what an attempt came to, and what becomes of it then.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::EventType;
use crate::schedule::Schedule;
use crate::webhook::WebhookId;

/// Identity of a delivery: one per event and webhook, the same after a crash, a retry, a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
pub struct DeliveryId(pub Uuid);

impl DeliveryId {
    /// Derived, never drawn: UUID version 5 (RFC 9562) of the event's id in the webhook's namespace.
    #[must_use]
    pub fn of(event_id: &str, webhook: WebhookId) -> Self {
        Self(Uuid::new_v5(&webhook.0, event_id.as_bytes()))
    }
}

impl std::str::FromStr for DeliveryId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an event stood when it was first read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Topic of the event.
    pub topic: std::sync::Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// One event for one webhook, as it travels through topics and the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Receivers deduplicate on it.
    pub id: DeliveryId,
    /// Whom to tell.
    pub webhook_id: WebhookId,
    /// What of.
    pub event_type: EventType,
    /// The event's identity.
    pub event_id: String,
    /// Whose transition it was.
    pub task_id: String,
    /// The same bytes on every attempt.
    pub body: Bytes,
    /// Attempts made so far.
    pub attempts: u32,
    /// Times it was put off without an attempt.
    pub deferrals: u32,
    /// When the event was first seen, Unix milliseconds.
    pub first_seen_at_ms: i64,
    /// Where the event came from.
    pub source: Source,
    /// Times it was replayed from the dead-letter topic.
    pub replays: u32,
    /// W3C trace context, where the event carried one.
    pub traceparent: Option<String>,
}

/// Why an attempt failed (contract section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// An answer that isn't 2xx.
    Status,
    /// No whole answer within `delivery.timeout`.
    Timeout,
    /// The host's name has no address.
    Dns,
    /// No connection.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// An answer that points elsewhere; never followed.
    Redirect,
    /// The host's address may not be dialled.
    AddressBlocked,
    /// The answer's body broke off.
    Body,
    /// What came wasn't HTTP.
    Protocol,
    /// Put off: the endpoint has its hands full.
    Saturated,
    /// Put off: the endpoint is known to be down.
    CircuitOpen,
}

impl FailureCode {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Redirect => "redirect",
            Self::AddressBlocked => "address_blocked",
            Self::Body => "body",
            Self::Protocol => "protocol",
            Self::Saturated => "saturated",
            Self::CircuitOpen => "circuit_open",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Status => "the endpoint answered with a status that isn't 2xx",
            Self::Timeout => "no whole answer came in time",
            Self::Dns => "the host's name has no address",
            Self::Connect => "no connection could be made, or it broke",
            Self::Tls => "the TLS handshake failed: look at the endpoint's certificate",
            Self::Redirect => "the endpoint answered with a redirect; these are never followed",
            Self::AddressBlocked => "the host's address isn't public and may not be dialled",
            Self::Body => "the answer's body broke off",
            Self::Protocol => "what came back wasn't HTTP",
            Self::Saturated => "put off without an attempt: the endpoint has its hands full",
            Self::CircuitOpen => "put off without an attempt: the endpoint is known to be down",
        }
    }
}

/// What one HTTP request came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// None for 2xx.
    pub failure: Option<FailureCode>,
    /// The answer's status, where one came.
    pub status: Option<u16>,
    /// As much of the answer's body as is kept.
    pub response_body: String,
    /// From the request's start to the body's end.
    pub duration: Duration,
    /// How long the endpoint asked to be left alone.
    pub retry_after: Option<Duration>,
    /// When it ended, Unix milliseconds.
    pub ended_at_ms: i64,
    /// Those of the request's headers that nobody could know from the delivery: signatures, their time.
    pub proofs: Vec<(&'static str, String)>,
}

impl Attempt {
    /// What the endpoint's limits go by.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome { failure: self.failure, status: self.status, retry_after: self.retry_after }
    }
}

/// What an attempt says of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// None for 2xx.
    pub failure: Option<FailureCode>,
    /// The answer's status, where one came.
    pub status: Option<u16>,
    /// How long the endpoint asked to be left alone.
    pub retry_after: Option<Duration>,
}

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

/// Whole milliseconds, rounded up: a wait is never cut short.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// The wall clock, Unix milliseconds, rounded down: what is due then is due now.
#[must_use]
pub fn now_ms() -> i64 {
    since_epoch().as_millis() as i64
}

/// The wall clock, Unix milliseconds, rounded up: a wait that is counted from it is never cut short.
#[must_use]
pub fn now_ms_up() -> i64 {
    millis(since_epoch())
}

fn since_epoch() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// How long the endpoint asked to be left alone: seconds or an HTTP date (RFC 9110, section 10.2.3).
#[must_use]
pub fn retry_after(value: &str, now_ms: i64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit is as long as can be; the policy caps it.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or(0));
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::Config;

    pub(crate) fn sample() -> Delivery {
        let webhook_id = WebhookId(Uuid::from_u128(7));
        Delivery {
            id: DeliveryId::of("e1", webhook_id),
            webhook_id,
            event_type: EventType::TaskFailed,
            event_id: "e1".into(),
            task_id: "t1".into(),
            body: Bytes::from_static(b"{}"),
            attempts: 0,
            deferrals: 0,
            first_seen_at_ms: 1_000,
            source: Source { topic: "task-events".into(), partition: 2, offset: 9 },
            replays: 0,
            traceparent: None,
        }
    }

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

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120", 0), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 10_000), Some(Duration::from_secs(50)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:01 GMT", 10_000), Some(Duration::ZERO));
        assert!(retry_after("99999999999999999999999", 0).is_some());
        assert_eq!(retry_after("soon", 0), None);
    }

    #[test]
    fn the_delivery_id_is_the_same_each_time_and_differs_by_webhook() {
        let (one, other) = (WebhookId(Uuid::from_u128(1)), WebhookId(Uuid::from_u128(2)));
        assert_eq!(DeliveryId::of("e", one), DeliveryId::of("e", one));
        assert_ne!(DeliveryId::of("e", one), DeliveryId::of("e", other));
    }
}
