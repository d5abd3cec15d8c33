//! The status page: workers, endpoints, partitions.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};

use super::elements::time;
use super::layout::{NavItem, layout};
use super::trend;
use crate::admin::problem::Refusal;
use crate::admin::sessions::Session;
use crate::admin::state::Shared;
use crate::admin::status::{EndpointStatus, PartitionStatus, Status};
use crate::report::BreakerState;
use crate::report::Stage;
use crate::webhook::WebhookId;

/// `GET /status`
pub async fn show(State(admin): State<Shared>, Extension(session): Extension<Session>) -> Result<Markup, Refusal> {
    let status = admin.status().await?;
    let names = Names::of(&admin, &status).await;
    let content = html! {
        h1 { "Status" }
        div #status data-refresh="5" {
            (summary(&status))
            (trend::lag(&admin.trend.samples()))
            h2 { "Workers" }
            @if status.workers.is_empty() {
                p .flash.warn { "No worker is running, so nothing is delivered. Events wait in Kafka." }
            } @else { (workers(&status)) }
            h2 { "Endpoints" }
            (endpoints(&status.endpoints, &names))
            h2 { "Partitions" }
            (topics(&status.partitions, &names))
        }
    };
    Ok(layout("Status", Some(&session), Some(NavItem::Status), &content))
}

/// How people call the webhooks: by their descriptions, or by their URLs.
struct Names(HashMap<WebhookId, String>);

impl Names {
    /// The names of the webhooks that `status` has. The page shows the id of one that can't be read.
    async fn of(admin: &Shared, status: &Status) -> Self {
        let endpoints = status.endpoints.iter().map(|one| one.endpoint.webhook_id);
        let holding = status.partitions.iter().filter_map(|one| one.holding.as_ref()?.webhook_id);
        let ids: HashSet<WebhookId> = endpoints.chain(holding).collect();
        Self(admin.store.names(ids).await.unwrap_or_default())
    }

    fn link(&self, webhook: WebhookId) -> Markup {
        html! {
            a .url href={ "/settings/webhooks/" (webhook) "/deliveries" } title=(webhook) {
                @match self.0.get(&webhook) { Some(name) => (name), None => code { (webhook) } }
            }
        }
    }
}

fn summary(status: &Status) -> Markup {
    let backing_off = status.endpoints.iter().filter(|one| one.endpoint.breaker != BreakerState::Closed).count();
    html! {
        dl .facts {
            dt { "Events not settled" } dd { (status.lag) }
            dt { "Oldest undelivered" } dd { @match status.oldest_undelivered_age_ms { Some(age) => (seconds(age)), None if status.lag == 0 => "none", None => "unknown: Kafka did not return it in time" } }
            dt { "Endpoints backing off" } dd { (backing_off) }
        }
    }
}

fn seconds(ms: i64) -> String {
    humantime::format_duration(Duration::from_secs(ms.unsigned_abs() / 1_000)).to_string()
}

fn workers(status: &Status) -> Markup {
    html! {
        div .scroll tabindex="0" role="region" aria-label="Workers" {
            table {
                thead { tr { th scope="col" { "Worker" } th scope="col" { "Version" } th scope="col" { "Partitions" } th scope="col" { "Deliveries open" } } }
                tbody {
                    @for worker in &status.workers {
                        tr {
                            td data-label="Worker" { (worker.worker) }
                            td data-label="Version" { (worker.version) }
                            td data-label="Partitions" { (worker.partitions) }
                            td data-label="Deliveries open" { (worker.in_flight) " of " (worker.in_flight_max) }
                        }
                    }
                }
            }
        }
    }
}

fn endpoints(endpoints: &[EndpointStatus], names: &Names) -> Markup {
    html! {
        @if endpoints.is_empty() { p .empty { "No endpoint is busy or backing off." } } @else {
            div .scroll tabindex="0" role="region" aria-label="Endpoints" {
                table {
                    thead { tr { th scope="col" { "Webhook" } th scope="col" { "State" } th scope="col" { "In flight" } th scope="col" { "Waiting" } th scope="col" { "Seen by" } } }
                    tbody { @for one in endpoints { (endpoint(one, names)) } }
                }
            }
        }
    }
}

fn endpoint(one: &EndpointStatus, names: &Names) -> Markup {
    let EndpointStatus { worker, endpoint } = one;
    html! {
        tr {
            td data-label="Webhook" { (names.link(endpoint.webhook_id)) }
            td data-label="State" {
                @match endpoint.breaker {
                    BreakerState::Open => span .badge.bad { "Backing off" },
                    BreakerState::HalfOpen => span .badge.warn { "Trying again" },
                    BreakerState::Closed => span .badge.ok { "Working" },
                }
                @if let Some(left) = endpoint.backs_off_ms { span .hint { " for " (seconds(left as i64)) } }
            }
            td data-label="In flight" { (endpoint.in_flight) " of " (endpoint.limit) }
            td data-label="Waiting" { (endpoint.waiting) }
            td data-label="Seen by" { (worker) }
        }
    }
}

/// One line for each topic, which opens to its partitions.
fn topics(partitions: &[PartitionStatus], names: &Names) -> Markup {
    html! {
        @for topic in partitions.chunk_by(|one, next| one.topic == next.topic) {
            @let name = topic.first().map_or("", |one| one.topic.as_str());
            @let lag: i64 = topic.iter().map(|one| one.lag).sum();
            @let blocked = topic.iter().filter(|one| one.holding.is_some()).count();
            @let unread = topic.iter().filter(|one| one.worker.is_none()).count();
            details .card id={ "topic-" (name) } open[unread > 0] {
                summary {
                    (name) " " span .hint {
                        (topic.len()) (if topic.len() == 1 { " partition" } else { " partitions" }) ", " (lag) " not settled"
                        @if blocked > 0 { ", " (blocked) " blocked" }
                    }
                    @if unread > 0 { " " span .badge.warn { (unread) " read by nobody" } }
                }
                (self::partitions(topic, names))
            }
        }
    }
}

fn partitions(partitions: &[PartitionStatus], names: &Names) -> Markup {
    html! {
        div .scroll tabindex="0" role="region" aria-label={ "Partitions of " (partitions.first().map_or("", |one| one.topic.as_str())) } {
            table {
                thead { tr { th scope="col" { "Partition" } th scope="col" { "Lag" } th scope="col" { "Committed" } th scope="col" { "Blocked by" } th scope="col" { "Read by" } } }
                tbody {
                    @for one in partitions {
                        tr {
                            td data-label="Partition" { (one.topic) " / " (one.partition) @if one.paused { " " span .badge.warn { "Paused" } } }
                            td data-label="Lag" { (one.lag) }
                            td data-label="Committed" { @match one.committed { Some(offset) => (offset), None => "–" } }
                            td data-label="Blocked by" { (blocked_by(one, names)) }
                            td data-label="Read by" { @match &one.worker { Some(worker) => (worker), None => span .badge.warn { "nobody" } } }
                        }
                    }
                }
            }
        }
    }
}

fn blocked_by(one: &PartitionStatus, names: &Names) -> Markup {
    html! {
        @match &one.holding {
            None => span .hint { "nothing" },
            Some(holding) => {
                "offset " (holding.offset) " of " (time(&holding.written_at)) ": "
                (match holding.stage {
                    Stage::Queued => "queued",
                    Stage::Waiting => "waiting for its endpoint",
                    Stage::Sending => "being sent",
                    Stage::Settling => "being settled",
                })
                @if let Some(webhook) = holding.webhook_id { ", " (names.link(webhook)) }
            }
        }
    }
}
