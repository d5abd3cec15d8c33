//! What benchmarks stand on: topics and keys of their own, processes whose cost can be read, a fast receiver.

#![allow(dead_code)] // each benchmark uses a part of it

pub mod process;
pub mod receiver;
pub mod world;
