//! The parts of the embedded system that `dev` and `listen` are made of.

pub mod receiver;
pub mod redis_server;
