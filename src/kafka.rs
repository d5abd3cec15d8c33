//! Kafka clients, consumer groups, topics and record headers.

pub mod admin;
pub mod clients;
pub mod describe;
pub mod group;
pub mod headers;
pub mod logging;
pub mod offsets_lost;
