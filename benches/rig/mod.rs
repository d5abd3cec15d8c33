//! The fixtures of the benchmarks: topics and keys per run, processes whose cost can be read, and a fast receiver.

#![allow(dead_code)] // No benchmark uses all of these fixtures.

pub mod process;
pub mod receiver;
pub mod world;

/// The value of a numeric environment variable, or `default` if it isn't set.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
