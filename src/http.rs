//! The HTTP client for requests to endpoints: its connections, the addresses it may dial, and its failure codes.

pub mod answer;
pub mod client;
pub mod connection;
pub mod dial;
pub mod failure;
pub mod names;
pub mod pool;
pub mod route;
pub mod target;
pub mod tls;
pub mod tunnel;
