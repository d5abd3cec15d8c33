//! The fixtures of the benchmarks: topics and keys per run, processes whose cost can be read, and a fast receiver.

#![allow(dead_code)] // No benchmark uses all of these fixtures.

pub mod course;
pub mod floor;
pub mod process;
pub mod receiver;
pub mod world;

/// The value of a numeric environment variable, or `default` if it isn't set.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// What a child process of a benchmark does, with its arguments.
pub type Role = (&'static str, fn(&[String]));

/// Runs the benchmark, or in a child process the role that its arguments name: `receiver`, or one of `roles`.
pub fn run(roles: &[Role], benchmark: impl Future<Output = ()>) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().and_then(|first| first.strip_prefix("role=")) {
        Some("receiver") => receiver::run(arguments[1].parse().expect("the argument is an address")),
        Some(role) => {
            let (_, play) = roles.iter().find(|(name, _)| *name == role).expect("the benchmark has this role");
            play(&arguments[1..]);
        }
        None => tokio::runtime::Runtime::new().expect("the runtime starts").block_on(benchmark),
    }
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
