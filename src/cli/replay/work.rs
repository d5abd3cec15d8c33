//! The kinds of work that the command does.

use std::collections::HashSet;

use crate::config::Config;
use crate::replay::choice::Choice;
use crate::replay::rewind::{self, Past};
use crate::replay::summary::Summary;
use crate::replay::{Manner, Watch, dead_letters, missed};
use crate::store::missed::Missed;
use crate::webhook::{Webhook, WebhookId};

/// The work of a replay: dead letters, or the past events of a rewind.
pub(super) enum Work {
    DeadLetters { choice: Choice, active: HashSet<WebhookId> },
    Rewind { webhook: Box<Webhook>, past: Past },
    Missed { webhook: Box<Webhook>, missed: Missed },
}

impl Work {
    /// The webhook that gets what it missed.
    pub(super) fn missed(&self) -> Option<(WebhookId, Missed)> {
        match self {
            Self::Missed { webhook, missed } => Some((webhook.id, missed.clone())),
            Self::DeadLetters { .. } | Self::Rewind { .. } => None,
        }
    }

    /// Does the work. Blocks.
    pub(super) fn run(self, config: &Config, manner: &Manner, watch: &mut Watch<'_>) -> anyhow::Result<Summary> {
        match self {
            Self::DeadLetters { choice, active } => dead_letters::replay(config, &choice, manner, &active, watch),
            Self::Rewind { webhook, past } => rewind::rewind(config, &webhook, &past, manner, watch),
            Self::Missed { webhook, missed } => missed::send(config, &webhook, &missed, manner, watch),
        }
    }
}
