//! optio-webhooks sends task transitions from Kafka to webhooks as signed requests, with retries and dead letters.
//!
//! The modules follow an event: [`event`] is a task transition that comes in, [`webhook`] is a subscription, and
//! [`delivery`] is one event for one webhook. [`pipeline`] joins the stages. `docs/architecture.md` describes the
//! whole.

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
pub mod position;
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
