//! The event types.

use serde::{Deserialize, Serialize};

/// The event types that webhooks subscribe to (`docs/reference.md`, section "Event types").
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
pub enum EventType {
    /// A task reached `completed`.
    #[serde(rename = "task.completed")]
    #[value(name = "task.completed")]
    TaskCompleted,
    /// A task reached `failed`.
    #[serde(rename = "task.failed")]
    #[value(name = "task.failed")]
    TaskFailed,
    /// A task reached `needs_attention`.
    #[serde(rename = "task.needs_attention")]
    #[value(name = "task.needs_attention")]
    TaskNeedsAttention,
    /// A task's agent opened a pull request.
    #[serde(rename = "task.pr_opened")]
    #[value(name = "task.pr_opened")]
    TaskPrOpened,
    /// A review subtask completed.
    #[serde(rename = "review.completed")]
    #[value(name = "review.completed")]
    ReviewCompleted,
    /// A webhook was disabled automatically.
    #[serde(rename = "webhook.disabled")]
    #[value(name = "webhook.disabled")]
    WebhookDisabled,
    /// A webhook has failed for `webhooks.failing_after` without a success, and its circuit is open.
    #[serde(rename = "webhook.failing")]
    #[value(name = "webhook.failing")]
    WebhookFailing,
    /// A webhook that was disabled or failing works again.
    #[serde(rename = "webhook.recovered")]
    #[value(name = "webhook.recovered")]
    WebhookRecovered,
    /// Deliveries to a webhook became dead letters.
    #[serde(rename = "delivery.exhausted")]
    #[value(name = "delivery.exhausted")]
    DeliveryExhausted,
}

impl EventType {
    /// All event types, in the order in which the page and the API list them.
    pub const ALL: [Self; 9] = [
        Self::TaskCompleted,
        Self::TaskFailed,
        Self::TaskNeedsAttention,
        Self::TaskPrOpened,
        Self::ReviewCompleted,
        Self::WebhookDisabled,
        Self::WebhookFailing,
        Self::WebhookRecovered,
        Self::DeliveryExhausted,
    ];

    /// The event types of tasks. They come from the events topic.
    pub const TASKS: [Self; 5] =
        [Self::TaskCompleted, Self::TaskFailed, Self::TaskNeedsAttention, Self::TaskPrOpened, Self::ReviewCompleted];

    /// The operational event types. They tell about webhooks, and the workers themselves make them.
    pub const OPERATIONAL: [Self; 4] =
        [Self::WebhookDisabled, Self::WebhookFailing, Self::WebhookRecovered, Self::DeliveryExhausted];

    /// Whether the event is about a webhook and not about a task.
    #[must_use]
    pub fn is_operational(self) -> bool {
        Self::OPERATIONAL.contains(&self)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskCompleted => "task.completed",
            Self::TaskFailed => "task.failed",
            Self::TaskNeedsAttention => "task.needs_attention",
            Self::TaskPrOpened => "task.pr_opened",
            Self::ReviewCompleted => "review.completed",
            Self::WebhookDisabled => "webhook.disabled",
            Self::WebhookFailing => "webhook.failing",
            Self::WebhookRecovered => "webhook.recovered",
            Self::DeliveryExhausted => "delivery.exhausted",
        }
    }

    /// A sentence for people that says when an event of this type occurs.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::TaskCompleted => {
                "Fired when a task reaches the completed state, typically when the agent's pull request is merged."
            }
            Self::TaskFailed => {
                "Fired when a task fails: the agent exits with an error, or the PR is closed without merging."
            }
            Self::TaskNeedsAttention => {
                "Fired when a reviewer has requested changes, or the agent can't resolve an issue by itself."
            }
            Self::TaskPrOpened => "Fired when the agent opens a pull request.",
            Self::ReviewCompleted => "Fired when a code review subtask completes: approved, or changes requested.",
            Self::WebhookDisabled => {
                "Fired when another webhook is disabled because it is gone or has failed for too long."
            }
            Self::WebhookFailing => "Fired when another webhook has failed for an hour without a success.",
            Self::WebhookRecovered => "Fired when another webhook that was disabled or failing works again.",
            Self::DeliveryExhausted => "Fired when deliveries to another webhook became dead letters.",
        }
    }

    /// Returns the event type with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.as_str() == name)
    }

    /// The state that a task has reached when the event occurs. An operational event has none.
    #[must_use]
    pub fn to_state(self) -> &'static str {
        match self {
            Self::WebhookDisabled | Self::WebhookFailing | Self::WebhookRecovered | Self::DeliveryExhausted => "",
            Self::TaskCompleted | Self::ReviewCompleted => "completed",
            Self::TaskFailed => "failed",
            Self::TaskNeedsAttention => "needs_attention",
            Self::TaskPrOpened => "pr_opened",
        }
    }

    /// Returns the event type of a transition, or `None` for a state that no webhook can subscribe to.
    #[must_use]
    pub(super) fn of_transition(to_state: &str, task_type: Option<&str>) -> Option<Self> {
        match to_state {
            "completed" if task_type == Some("review") => Some(Self::ReviewCompleted),
            "completed" => Some(Self::TaskCompleted),
            "failed" => Some(Self::TaskFailed),
            "needs_attention" => Some(Self::TaskNeedsAttention),
            "pr_opened" => Some(Self::TaskPrOpened),
            _ => None,
        }
    }
}
