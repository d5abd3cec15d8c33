//! optio-webhooks sends task transitions from Kafka to webhooks as signed requests, with retries and dead letters.
//!
//! The modules follow an event: [`event`] is a task transition that comes in, [`webhook`] is a subscription, and
//! [`delivery`] is one event for one webhook. `pipeline` joins the stages. `docs/architecture.md` describes the
//! whole.

pub mod address;
mod admin;
mod chance;
pub mod cli;
pub mod clock;
mod conditions;
pub mod config;
pub mod delivery;
pub mod detail;
mod dev;
pub mod event;
pub mod http;
pub mod kafka;
mod metrics;
pub mod offsets;
mod operational;
mod payload;
mod pipeline;
pub mod position;
mod printable;
pub mod record;
mod redelivery;
pub mod replay;
pub mod report;
mod retry_after;
pub mod schedule;
pub mod secret;
pub mod signature;
pub mod store;
pub mod topics;
pub mod traceparent;
pub mod traces;
mod trial;
pub mod webhook;
mod worker;

/// The private items that the targets in `fuzz` call.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::offsets::{Watermark, commit_note};
    pub use crate::retry_after::read as read_retry_after;
    pub use crate::webhook::unsupported::Unsupported;
}
