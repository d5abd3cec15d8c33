//! What a replay prints when it has ended.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;

use super::Replay;
use crate::cli::{Failure, say, say_json};
use crate::delivery::DeadReason;
use crate::replay::summary::{Group, Summary};
use crate::webhook::{Webhook, WebhookId};

impl Replay {
    pub(super) fn print_summary(
        &self,
        summary: &Summary,
        webhooks: &HashMap<WebhookId, Webhook>,
    ) -> Result<(), Failure> {
        if self.from_log { self.print_rewind(summary) } else { self.print_dead_letters(summary, webhooks) }
    }

    fn print_dead_letters(&self, summary: &Summary, webhooks: &HashMap<WebhookId, Webhook>) -> Result<(), Failure> {
        let gone: u64 = summary.gone.values().sum();
        if self.json {
            let rows: Vec<_> = summary
                .replayed
                .iter()
                .filter_map(|(group, count)| dead_letters(*group).map(|letters| (letters, count)))
                .map(|((webhook, reason), count)| json!({ "webhookId": webhook, "reason": reason, "count": count }))
                .collect();
            return say_json(&json!({
                "dryRun": self.dry_run, "interrupted": summary.interrupted, "lookedAt": summary.looked_at,
                "replayed": summary.total(), "byWebhookAndReason": rows, "replayedBefore": summary.before,
                "webhookGone": summary.gone, "shortened": summary.shortened, "notDeadLetters": summary.foreign,
            }));
        }
        let by_group = summary.replayed.iter().filter_map(|(group, count)| Some((dead_letters(*group)?, count)));
        for ((webhook, reason), count) in by_group {
            let target = match webhook {
                Some(id) => {
                    let url = webhooks.get(&id).map_or(String::new(), |webhook| format!("  {}", webhook.url));
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

    fn print_rewind(&self, summary: &Summary) -> Result<(), Failure> {
        if self.json {
            let by_event: BTreeMap<&str, u64> =
                summary.replayed.iter().filter_map(|(group, count)| Some((event(*group)?, *count))).collect();
            return say_json(&json!({
                "dryRun": self.dry_run, "interrupted": summary.interrupted, "lookedAt": summary.looked_at,
                "replayed": summary.total(), "byEvent": by_event, "replayedBefore": summary.before,
                "unreadable": summary.foreign,
            }));
        }
        for (group, count) in &summary.replayed {
            say(&format!("{count:>9}  {}", event(*group).unwrap_or_default()));
        }
        if summary.before > 0 {
            say(&format!("{:>9}  skipped: sent by an earlier rewind (--again sends them again)", summary.before));
        }
        if summary.foreign > 0 {
            say(&format!("{:>9}  skipped: can't be read as transitions", summary.foreign));
        }
        let verb = if self.dry_run { "would be sent" } else { "sent" };
        say(&format!("{} {verb}, of {} records looked at", summary.total(), summary.looked_at));
        Ok(())
    }
}

fn dead_letters(group: Group) -> Option<(Option<WebhookId>, DeadReason)> {
    match group {
        Group::DeadLetters(webhook, reason) => Some((webhook, reason)),
        Group::Events(_) => None,
    }
}

fn event(group: Group) -> Option<&'static str> {
    match group {
        Group::Events(event) => Some(event.as_str()),
        Group::DeadLetters(..) => None,
    }
}
