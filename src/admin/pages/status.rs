//! How the whole stands.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use maud::{Markup, html};

use super::Refusal;
use super::layout::{Place, layout};
use super::time;
use crate::admin::Shared;
use crate::admin::auth::Session;
use crate::admin::status::{EndpointStatus, PartitionStatus, Status};
use crate::pipeline::partition::Stage;
use crate::report::BreakerState;

/// `GET /status`
pub async fn show(State(admin): State<Shared>, Extension(session): Extension<Session>) -> Result<Markup, Refusal> {
    let status = admin.status().await?;
    let content = html! {
        h1 { "Status" }
        div #status data-refresh="5" {
            (summary(&status))
            h2 { "Workers" }
            @if status.workers.is_empty() {
                p .flash.warn { "No worker runs: nothing is delivered. Events wait in Kafka until one does." }
            } @else { (workers(&status)) }
            h2 { "Endpoints" }
            (endpoints(&status.endpoints))
            h2 { "Partitions" }
            (partitions(&status.partitions))
        }
    };
    Ok(layout("Status", Some(&session), Some(Place::Status), &content))
}

fn summary(status: &Status) -> Markup {
    let troubled = status.endpoints.iter().filter(|one| one.endpoint.breaker != BreakerState::Closed).count();
    html! {
        dl .facts {
            dt { "Events not settled" } dd { (status.lag) }
            dt { "Oldest undelivered" } dd { @match status.oldest_undelivered_age_ms { Some(age) => (seconds(age)), None if status.lag == 0 => "none waits", None => "not known: Kafka didn't bring it in time" } }
            dt { "Endpoints left alone" } dd { (troubled) }
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

fn endpoints(endpoints: &[EndpointStatus]) -> Markup {
    html! {
        @if endpoints.is_empty() { p .empty { "Nothing is held against any endpoint, and none has anything to do right now." } } @else {
            div .scroll tabindex="0" role="region" aria-label="Endpoints" {
                table {
                    thead { tr { th scope="col" { "Webhook" } th scope="col" { "State" } th scope="col" { "In flight" } th scope="col" { "Waiting" } th scope="col" { "Seen by" } } }
                    tbody { @for one in endpoints { (endpoint(one)) } }
                }
            }
        }
    }
}

fn endpoint(one: &EndpointStatus) -> Markup {
    let EndpointStatus { worker, endpoint } = one;
    html! {
        tr {
            td data-label="Webhook" { a href={ "/settings/webhooks/" (endpoint.webhook_id) "/deliveries" } { code { (endpoint.webhook_id) } } }
            td data-label="State" {
                @match endpoint.breaker {
                    BreakerState::Open => span .badge.bad { "Left alone" },
                    BreakerState::HalfOpen => span .badge.warn { "Being tried" },
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

fn partitions(partitions: &[PartitionStatus]) -> Markup {
    html! {
        div .scroll tabindex="0" role="region" aria-label="Partitions" {
            table {
                thead { tr { th scope="col" { "Partition" } th scope="col" { "Lag" } th scope="col" { "Committed" } th scope="col" { "Held by" } th scope="col" { "Read by" } } }
                tbody {
                    @for one in partitions {
                        tr {
                            td data-label="Partition" { (one.topic) " / " (one.partition) @if one.paused { " " span .badge.warn { "Paused" } } }
                            td data-label="Lag" { (one.lag) }
                            td data-label="Committed" { @match one.committed { Some(offset) => (offset), None => "–" } }
                            td data-label="Held by" { (holding(one)) }
                            td data-label="Read by" { @match &one.worker { Some(worker) => (worker), None => span .badge.warn { "nobody" } } }
                        }
                    }
                }
            }
        }
    }
}

fn holding(one: &PartitionStatus) -> Markup {
    html! {
        @match &one.holding {
            None => span .hint { "nothing" },
            Some(holding) => {
                "offset " (holding.offset) " of " (time(&holding.written_at)) ": "
                (match holding.stage {
                    Stage::Queued => "waits for its turn",
                    Stage::Waiting => "waits for its endpoint",
                    Stage::Sending => "is being sent",
                    Stage::Settling => "is being written down",
                })
                @if let Some(webhook) = holding.webhook_id { ", " a href={ "/settings/webhooks/" (webhook) "/deliveries" } { code { (webhook) } } }
            }
        }
    }
}
