//! The client that all requests go through, and which addresses it may dial.

pub mod address;
pub mod client;
