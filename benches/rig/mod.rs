//! The fixtures of the benchmarks: topics and keys per run, processes whose cost can be read, and a fast receiver.

#![allow(dead_code)] // No benchmark uses all of these fixtures.

pub mod floor;
pub mod process;
pub mod receiver;
pub mod world;

/// The value of a numeric environment variable, or `default` if it isn't set.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// Prints a figure for people, and as a line of JSON for programs.
pub fn figure(benchmark: &str, name: &str, value: f64, unit: &str) {
    println!("{name}: {value:.2}{}{unit}", if unit.is_empty() { "" } else { " " });
    println!("{}", serde_json::json!({ "benchmark": benchmark, "figure": name, "value": value, "unit": unit }));
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
