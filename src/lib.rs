//! optio-webhooks: from a task transition in Kafka to a signed request, retried, dead-lettered, committed.
//!
//! The modules are the way of an event: [`event`] is what comes in, [`webhook`] who wants it, [`delivery`] one event
//! for one webhook; [`pipeline`] joins the stages. `docs/architecture.md` tells the whole story.

pub mod address;
pub mod admin;
pub mod cli;
pub mod clock;
pub mod conditions;
pub mod config;
pub mod delivery;
pub mod dev;
pub mod event;
pub mod http;
pub mod kafka;
pub mod metrics;
pub mod offsets;
pub mod payload;
pub mod pipeline;
pub mod record;
pub mod redelivery;
pub mod replay;
pub mod report;
pub mod retry_after;
pub mod schedule;
pub mod signature;
pub mod store;
pub mod topics;
pub mod trial;
pub mod webhook;
pub mod worker;
