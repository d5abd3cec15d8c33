//! Attempts across all webhooks, as far as they can be read within a bounded time.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::StreamExt as _;

use super::problem::Problem;
use super::state::{Admin, SEARCHES_MAX};
use crate::store::log::{EntryId, Filter, LogEntry};
use crate::webhook::Webhook;

/// The most attempts of one webhook that are found.
const OF_WEBHOOK_MAX: usize = 50;
/// The most attempts of one webhook if nothing is searched for. There may be many webhooks.
const NEWEST_MAX: usize = 5;
/// How many logs are read at once.
const AT_ONCE: usize = 16;
/// How long a search may take. What is found by then is shown.
const SEARCH_MAX: Duration = Duration::from_secs(5);

/// What a search found.
pub struct Found {
    /// The attempts with their webhooks, newest first.
    pub attempts: Vec<(Webhook, LogEntry<'static>)>,
    /// The number of webhooks whose logs were searched.
    pub searched: usize,
    /// The number of webhooks.
    pub webhooks: usize,
}

impl Found {
    /// Whether every log was searched.
    pub fn is_complete(&self) -> bool {
        self.searched == self.webhooks
    }
}

impl Admin {
    /// Up to `limit` attempts of all webhooks that `filter` accepts, newest first.
    pub async fn search(&self, filter: &Filter, limit: usize) -> Result<Found, Problem> {
        let Ok(_permit) = self.searches.try_acquire() else {
            let sentence = format!("{SEARCHES_MAX} searches already run on this server; try again in a moment");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence));
        };
        let webhooks = self.store.listing().await?.webhooks;
        let count = webhooks.len();
        let is_everything = *filter == Filter::default();
        let each = limit.min(if is_everything { NEWEST_MAX } else { OF_WEBHOOK_MAX });
        let pages = futures_util::stream::iter(webhooks)
            .map(async |webhook| {
                let page = self.log.page(webhook.id, filter.clone(), None, each).await;
                page.map(|page| (webhook, page.entries))
            })
            .buffer_unordered(AT_ONCE);
        let mut pages = std::pin::pin!(pages);
        let deadline = tokio::time::Instant::now() + SEARCH_MAX;
        let (mut attempts, mut searched) = (Vec::new(), 0);
        while let Ok(Some(page)) = tokio::time::timeout_at(deadline, pages.next()).await {
            let (webhook, entries) = page?;
            searched += 1;
            attempts.extend(entries.into_iter().map(|entry| (webhook.clone(), entry)));
            if attempts.len() > 4 * limit {
                newest(&mut attempts, limit);
            }
        }
        newest(&mut attempts, limit);
        Ok(Found { attempts, searched, webhooks: count })
    }
}

fn newest(attempts: &mut Vec<(Webhook, LogEntry<'static>)>, limit: usize) {
    attempts.sort_by_key(|(_, entry)| std::cmp::Reverse::<EntryId>(entry.id));
    attempts.truncate(limit);
}
