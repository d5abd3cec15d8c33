//! Kafka clients, consumer groups, topics and record headers.

pub mod admin;
pub mod clients;
pub(crate) mod closing;
pub(crate) mod describe;
pub(crate) mod group;
pub mod headers;
pub(crate) mod leader_epoch;
pub(crate) mod logging;
pub(crate) mod occasional;
pub(crate) mod offsets_lost;
pub(crate) mod refusal;
pub mod rights;
mod suppressing;
