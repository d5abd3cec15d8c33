//! Faults in random order under a steady load, with a ledger of its own: every event has arrived at every webhook, or is a
//! dead letter; nothing came too early, or after its webhook was deleted.
//!
//! A seed decides which faults come and when. `make chaos` runs one seed after another for a quarter of an hour, each second
//! one with three brokers; `make test` runs one. `CHAOS_SEED=7 make chaos` begins with another seed.

mod fault;
mod ledger;
mod system;

use std::time::{Duration, Instant};

use optio_webhooks::clock::now_ms;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use fault::{Fault, Part};
use system::System;

/// For how long after a fault of the network requests may still be on their way.
const HELD_BACK_MS: i64 = 5_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_lose_no_event() {
    let (first, seconds, faults) = (number("CHAOS_SEED", 1), number("CHAOS_SECONDS", 0), number("CHAOS_FAULTS", 10));
    let began = Instant::now();
    let (mut all, mut repeated, mut seeds) = (0, 0, 0);
    for seed in first.. {
        let brokers = if seed % 2 == 0 { 3 } else { 1 };
        let figures = run(seed, brokers, faults as usize, &Fault::all(brokers)).await;
        println!("seed {seed}, {brokers} brokers: {figures}");
        assert!(figures.broken.is_empty(), "seed {seed}: {:#?}", figures.broken);
        all += figures.faults;
        repeated += figures.repeated;
        seeds += 1;
        if began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
    println!("{all} faults over {seeds} seeds: nothing lost, early or after deletion; {repeated} repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_and_rebalances_repeat_nothing() {
    let drains = number("CHAOS_DRAINS", 4) as usize;
    let figures = run(0, 1, drains, &[Fault::Drain, Fault::Join]).await;
    println!("{figures}");
    assert!(figures.broken.is_empty() && figures.repeated == 0, "{:#?}", figures.broken);
}

/// Puts `count` faults on a system under load. Every fault of `kinds` comes once before any comes twice.
async fn run(seed: u64, brokers: u16, count: usize, kinds: &[Fault]) -> ledger::Figures {
    let mut system = System::start(StdRng::seed_from_u64(seed), brokers).await;
    let mut left = Vec::new();
    for _ in 0..count {
        if left.is_empty() {
            left = kinds.to_vec();
        }
        let fault = left.swap_remove(system.random.random_range(0..left.len()));
        let (began, began_ms) = (Instant::now(), now_ms());
        let written = system.load();
        system.inject(fault).await;
        for record in written {
            record.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
        if matches!(fault, Fault::Network(Part::Endpoints, _)) {
            system.ledger.held_back.push(began_ms..=now_ms() + HELD_BACK_MS);
        }
        *system.ledger.faults.entry(fault).or_default() += 1;
        println!("{fault:?} took {:.1} s", began.elapsed().as_secs_f64());
    }
    system.figures().await
}
