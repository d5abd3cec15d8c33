//! The commands of `api` and their options.

use axum::http::Method;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::delivery::DeadReason;
use crate::event::EventType;
use crate::signature::Signing;
use crate::webhook::WebhookId;

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the webhooks.
    List,
    /// Show one webhook.
    Show { id: WebhookId },
    /// Pause a webhook. What it misses is counted and can be sent later.
    Pause {
        id: WebhookId,
        /// Deliveries wait until the webhook is resumed, for at most delivery.age_max.
        #[arg(long)]
        hold: bool,
    },
    /// Resume a webhook.
    Resume { id: WebhookId },
    /// Replace the signing secret. A generated one is in the answer and is shown only once.
    Rotate {
        id: WebhookId,
        /// Read the new secret from the first line of standard input. By default, one is generated.
        #[arg(long)]
        secret_stdin: bool,
        /// How the new secret signs.
        #[arg(long)]
        signing: Option<Signing>,
        /// How long the old secret also signs.
        #[arg(long, value_name = "TIME")]
        overlap: Option<String>,
    },
    /// Send a sample event at once and show the result. Exits with 1 if the endpoint did not accept it.
    Test {
        id: WebhookId,
        /// The event type; by default the first that the webhook subscribes to.
        #[arg(long)]
        event: Option<EventType>,
    },
    /// Try a filter on the last 100 events.
    TryFilter {
        /// The filter as JSON.
        filter: String,
    },
    /// The delivery log of a webhook, newest first.
    Deliveries {
        id: WebhookId,
        #[command(flatten)]
        filter: LogFilter,
        /// Only entries older than this one: the `next` of an earlier page.
        #[arg(long)]
        before: Option<String>,
    },
    /// Attempts of all webhooks for a task, an event, a delivery or a status, newest first.
    Search {
        /// The id of a task, an event or a delivery, or a status.
        text: Option<String>,
        #[command(flatten)]
        filter: LogFilter,
    },
    /// Send a delivery again. It replaces a retry that waits.
    Redeliver {
        id: WebhookId,
        /// The id of a delivery, or of an entry of the log.
        delivery: String,
    },
    /// The dead letters, newest first.
    DeadLetters {
        #[command(flatten)]
        filter: LetterFilter,
        /// The `next` of an earlier page.
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Replay dead letters, and wait until that has ended.
    Replay {
        #[command(flatten)]
        filter: LetterFilter,
        /// Replay all dead letters.
        #[arg(long)]
        all: bool,
        /// Also replay what was replayed before.
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        manner: ReplayManner,
    },
    /// The attempts of a webhook in each hour of the last 7 days, and how long they took.
    Activity { id: WebhookId },
    /// How many events a webhook missed while it was paused or disabled.
    Missed { id: WebhookId },
    /// Send a webhook what it missed, and wait until that has ended.
    SendMissed {
        id: WebhookId,
        #[command(flatten)]
        manner: ReplayManner,
    },
    /// Stop a replay after its current batch.
    Stop {
        /// The id of the replay.
        replay: String,
    },
    /// Workers, partitions and endpoints.
    Status,
    /// Any other call of the API.
    Call {
        /// GET, POST, PUT, PATCH or DELETE.
        method: Method,
        /// The path with its query, such as /api/audit?limit=5.
        path: String,
        /// The body as JSON.
        #[arg(long, value_name = "JSON")]
        data: Option<String>,
    },
}

#[derive(clap::Args)]
pub(super) struct LogFilter {
    /// Only attempts that succeeded.
    #[arg(long, conflicts_with = "failed")]
    delivered: bool,
    /// Only attempts that failed.
    #[arg(long)]
    failed: bool,
    /// Only attempts for this event type.
    #[arg(long)]
    event: Option<EventType>,
    /// Only attempts of the task, event or delivery with this id, or whose answer has this status.
    #[arg(long = "matching", value_name = "TEXT")]
    search: Option<String>,
    /// Only attempts from this time on: 2026-11-24T10:00:00Z, or how long ago: 2h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only attempts from before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The highest number of attempts: 1 to 200.
    #[arg(long)]
    limit: Option<u32>,
}

impl LogFilter {
    /// The fields of the request.
    pub(super) fn fields(&self) -> Vec<(&'static str, Option<String>)> {
        let success = if self.delivered { Some("true") } else { self.failed.then_some("false") };
        vec![
            ("success", success.map(str::to_owned)),
            ("event", self.event.map(|event| event.as_str().to_owned())),
            ("search", self.search.clone()),
            ("since", self.since.clone()),
            ("until", self.until.clone()),
            ("limit", self.limit.map(|limit| limit.to_string())),
        ]
    }
}

#[derive(clap::Args)]
pub(super) struct LetterFilter {
    /// Only dead letters of this webhook.
    #[arg(long)]
    webhook: Option<WebhookId>,
    /// Only dead letters of this event type.
    #[arg(long)]
    event: Option<EventType>,
    /// Only dead letters with this reason.
    #[arg(long)]
    reason: Option<DeadReason>,
    /// Only dead letters with this delivery id.
    #[arg(long)]
    delivery: Option<String>,
    /// Only dead letters from this time on: 2026-11-24T10:00:00Z, or how long ago: 2h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only dead letters from before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The highest number.
    #[arg(long)]
    limit: Option<u64>,
}

impl LetterFilter {
    /// The fields of the request.
    pub(super) fn fields(&self) -> Vec<(&'static str, Option<Value>)> {
        let text = |text: &Option<String>| text.clone().map(Value::from);
        vec![
            ("webhook", self.webhook.map(|id| json!(id))),
            ("event", self.event.map(|event| json!(event))),
            ("reason", self.reason.map(|reason| json!(reason))),
            ("delivery", text(&self.delivery)),
            ("since", text(&self.since)),
            ("until", text(&self.until)),
            ("limit", self.limit.map(Value::from)),
        ]
    }
}

#[derive(clap::Args)]
pub(super) struct ReplayManner {
    /// The highest number to send each second.
    #[arg(long)]
    rate: Option<u32>,
    /// Only count what would be sent.
    #[arg(long)]
    dry_run: bool,
}

impl ReplayManner {
    /// The fields of the request.
    pub(super) fn fields(&self) -> [(&'static str, Option<Value>); 2] {
        [("rate", self.rate.map(Value::from)), ("dryRun", self.dry_run.then_some(json!(true)))]
    }
}
