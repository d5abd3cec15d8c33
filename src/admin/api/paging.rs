//! The pages of the list of webhooks.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::admin::number::Count;
use crate::admin::problem::Problem;
use crate::webhook::{Webhook, WebhookId};

/// The highest number of webhooks on a page.
const LIMIT_MAX: u64 = 1_000;

/// The place where a page of webhooks begins.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WebhooksQuery {
    /// The highest number of webhooks on the page: 1 to 1,000; all of them by default.
    #[param(value_type = Option<usize>)]
    limit: Option<Count<1, LIMIT_MAX>>,
    /// Only webhooks after this one: the `next` of an earlier page.
    after: Option<WebhookId>,
}

impl WebhooksQuery {
    /// The webhooks of the page, and the `after` of the next one. `all` are in the order of the list.
    ///
    /// # Errors
    /// 400: a webhook that was removed meanwhile begins no page.
    pub fn page<'a>(&self, all: &'a [Webhook]) -> Result<(&'a [Webhook], Option<WebhookId>), Problem> {
        let start = match self.after {
            None => 0,
            Some(after) => {
                let found = all.iter().position(|webhook| webhook.id == after);
                let gone = || Problem::field("after", "there is no such webhook any more; begin again without it");
                1 + found.ok_or_else(gone)?
            }
        };
        let limit = self.limit.as_ref().map_or(usize::MAX, |limit| limit.get() as usize);
        let rest = all.get(start..).unwrap_or_default();
        let page = &rest[..rest.len().min(limit)];
        Ok((page, page.last().filter(|_| page.len() < rest.len()).map(|webhook| webhook.id)))
    }
}
