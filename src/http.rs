//! The HTTP client for requests to endpoints: its connections, the addresses it may dial, and its failure codes.

pub(crate) mod answer;
pub mod client;
pub mod connection;
pub(crate) mod dial;
pub mod failure;
pub(crate) mod guard;
pub mod names;
pub(crate) mod observed;
pub(crate) mod pool;
pub(crate) mod reread;
pub(crate) mod route;
pub(crate) mod target;
pub(crate) mod tls;
pub(crate) mod tunnel;
pub mod vetting;
