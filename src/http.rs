//! Requests to endpoints: one client, what it may dial, and what each failure is called.

pub mod address;
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
