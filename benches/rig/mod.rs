//! What benchmarks stand on: topics and keys of their own, processes whose cost can be read, a fast receiver.

#![allow(dead_code)] // each benchmark uses a part of it

pub mod process;
pub mod receiver;
pub mod world;

/// A number from the environment.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
