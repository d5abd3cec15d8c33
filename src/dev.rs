//! A receiver and a private Redis, for `dev` and `listen`.

pub mod receiver;
pub mod redis_server;
