//! A request to replay dead letters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::number::Count;
use crate::admin::problem::Problem;
use crate::delivery::{DeadReason, DeliveryId};
use crate::event::EventType;
use crate::replay::choice::Choice;
use crate::replay::moment::Moment;
use crate::webhook::WebhookId;

/// The highest number of dead letters that one replay may be limited to.
const REPLAYS_MAX: u64 = 1_000_000_000_000;
/// The highest rate of a replay, each second.
const RATE_MAX: u64 = 1_000_000;

/// The choice of dead letters to replay, and how to replay them. The filters narrow each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schema(as = Request)]
pub struct ReplayRequest {
    /// Only dead letters of this webhook.
    pub webhook: Option<WebhookId>,
    /// Only dead letters of this event type.
    pub event: Option<EventType>,
    /// Only dead letters with this reason.
    pub reason: Option<DeadReason>,
    /// Only dead letters with this delivery id.
    pub delivery: Option<DeliveryId>,
    /// Only the dead letter with this `id` (partition/offset).
    pub letter: Option<String>,
    /// Only dead letters from this time on: `2026-11-24T10:00:00Z`, or how long ago: `2h`.
    pub since: Option<String>,
    /// Only dead letters from before this time.
    pub until: Option<String>,
    /// The highest number of dead letters to replay.
    #[schema(value_type = Option<u64>)]
    pub limit: Option<Count<1, REPLAYS_MAX>>,
    /// The highest number of dead letters to replay each second.
    #[schema(value_type = Option<u32>)]
    pub rate: Option<Count<1, RATE_MAX>>,
    /// Replay all dead letters. A request without a filter and without `limit` is refused unless this is true.
    pub all: bool,
    /// Also replay those that were replayed before.
    pub again: bool,
    /// Only count what would be replayed.
    pub dry_run: bool,
    /// Send what `webhook` missed: its dead letters, and the events that it did not get while it was paused or disabled.
    /// Only `rate` and `dryRun` go with it.
    pub missed: bool,
}

impl ReplayRequest {
    /// The webhook that gets what it missed, if that is asked for.
    ///
    /// # Errors
    /// 400: there is no webhook, or a filter that does not go with it.
    pub fn missed(&self) -> Result<Option<WebhookId>, Problem> {
        if !self.missed {
            return Ok(None);
        }
        let Some(webhook) = self.webhook else {
            return Err(Problem::field("missed", "needs webhook, the id of the webhook that gets what it missed"));
        };
        let Self { rate, dry_run, .. } = *self;
        if *self != (Self { webhook: Some(webhook), missed: true, rate, dry_run, ..Self::default() }) {
            return Err(Problem::field(
                "missed",
                "goes only with webhook, rate and dryRun; leave the other filters out",
            ));
        }
        Ok(Some(webhook))
    }

    /// The filters of the request.
    ///
    /// # Errors
    /// 400: a field can't be read.
    pub fn choice(&self) -> Result<Choice, Problem> {
        let at = self.letter.as_deref().map(|letter| {
            let (partition, offset) = letter.split_once('/')?;
            place(partition, offset)
        });
        let at = match at {
            Some(None) => return Err(Problem::field("letter", "isn't the id of a dead letter, such as 3/1042")),
            Some(at) => at,
            None => None,
        };
        Ok(Choice {
            at,
            webhooks: self.webhook.into_iter().collect(),
            events: self.event.into_iter().collect(),
            reasons: self.reason.into_iter().collect(),
            deliveries: self.delivery.into_iter().collect(),
            since_ms: moment("since", self.since.as_deref())?,
            until_ms: moment("until", self.until.as_deref())?,
        })
    }
}

/// The time in a field, in Unix milliseconds; None for an empty one.
///
/// # Errors
/// 400: the text is not a time.
pub fn moment(field: &str, text: Option<&str>) -> Result<Option<i64>, Problem> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return Ok(None) };
    let Moment(at_ms) = text.parse().map_err(|error| Problem::field(field, error))?;
    Ok(Some(at_ms))
}

/// The partition and the offset in two texts. Neither is negative.
pub fn place(partition: &str, offset: &str) -> Option<(i32, i64)> {
    let (partition, offset): (i32, i64) = (partition.parse().ok()?, offset.parse().ok()?);
    (partition >= 0 && offset >= 0).then_some((partition, offset))
}
