//! What a replay prints when it has ended.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;

use super::{Outcome, Replay};
use crate::cli::{Failure, say, say_json};
use crate::replay::{dead_letters, from_log};
use crate::webhook::{Webhook, WebhookId};

impl Replay {
    pub(super) fn print_summary(
        &self,
        outcome: &Outcome,
        webhooks: &HashMap<WebhookId, Webhook>,
    ) -> Result<(), Failure> {
        match outcome {
            Outcome::DeadLetters(summary) => self.print_dead_letters(summary, webhooks),
            Outcome::Rewind(summary) => self.print_rewind(summary),
        }
    }

    fn print_dead_letters(
        &self,
        summary: &dead_letters::Summary,
        webhooks: &HashMap<WebhookId, Webhook>,
    ) -> Result<(), Failure> {
        let gone: u64 = summary.gone.values().sum();
        if self.json {
            let rows: Vec<_> = summary
                .replayed
                .iter()
                .map(|((webhook, reason), count)| json!({ "webhookId": webhook, "reason": reason, "count": count }))
                .collect();
            return say_json(&json!({
                "dryRun": self.dry_run, "interrupted": summary.interrupted, "lookedAt": summary.looked_at,
                "replayed": summary.total(), "byWebhookAndReason": rows, "replayedBefore": summary.before,
                "webhookGone": summary.gone, "shortened": summary.shortened, "notDeadLetters": summary.foreign,
            }));
        }
        for ((webhook, reason), count) in &summary.replayed {
            let target = match webhook {
                Some(id) => {
                    let url = webhooks.get(id).map_or(String::new(), |webhook| format!("  {}", webhook.url));
                    format!("{id}{url}")
                }
                None => "(records that couldn't be read)".to_owned(),
            };
            say(&format!("{count:>9}  {:<10} {target}", reason.as_str()));
        }
        for (id, count) in &summary.gone {
            let state = if webhooks.contains_key(id) { "inactive" } else { "deleted" };
            say(&format!("{count:>9}  skipped: webhook {id} is {state}"));
        }
        if summary.before > 0 {
            say(&format!("{:>9}  skipped: replayed before (--again replays them)", summary.before));
        }
        if summary.shortened > 0 {
            let reason = "shortened; each dead letter says where the original record is";
            say(&format!("{:>9}  skipped: {reason}", summary.shortened));
        }
        if summary.foreign > 0 {
            say(&format!("{:>9}  skipped: not dead letters of this program", summary.foreign));
        }
        let verb = if self.dry_run { "would be replayed" } else { "replayed" };
        say(&format!(
            "{} {verb}, of {} chosen and {} looked at",
            summary.total(),
            summary.total() + summary.before + summary.shortened + gone,
            summary.looked_at
        ));
        Ok(())
    }

    fn print_rewind(&self, summary: &from_log::Summary) -> Result<(), Failure> {
        if self.json {
            let by_event: BTreeMap<&str, u64> =
                summary.replayed.iter().map(|(event, count)| (event.as_str(), *count)).collect();
            return say_json(&json!({
                "dryRun": self.dry_run, "interrupted": summary.interrupted, "lookedAt": summary.looked_at,
                "replayed": summary.total(), "byEvent": by_event, "replayedBefore": summary.before,
                "unreadable": summary.unreadable,
            }));
        }
        for (event, count) in &summary.replayed {
            say(&format!("{count:>9}  {}", event.as_str()));
        }
        if summary.before > 0 {
            say(&format!("{:>9}  skipped: sent by an earlier rewind (--again sends them again)", summary.before));
        }
        if summary.unreadable > 0 {
            say(&format!("{:>9}  skipped: can't be read as transitions", summary.unreadable));
        }
        let verb = if self.dry_run { "would be sent" } else { "sent" };
        say(&format!("{} {verb}, of {} records looked at", summary.total(), summary.looked_at));
        Ok(())
    }
}
