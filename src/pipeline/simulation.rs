//! A simulation of one worker in paused time: the intake, the windows, the fan-out, lanes, circuit breakers, permits, the
//! hand-off, the settling and the commits are those of the program. What is outside of it ([`outside`]) is scripted:
//! the brokers, Redis and the endpoints are slow, refuse, or lose an answer, and the process dies and loses partitions.
//!
//! A seed decides what the scripts do. Tokio wakes the tasks that wait for one value in an order of its own, so a seed
//! repeats its faults, and not every interleaving. `make test` runs a few hundred seeds, and `make chaos` a hundred thousand
//! (`SIMULATED_SEEDS`, `SIMULATED_FIRST`).

mod consumer;
mod endpoints;
mod kafka;
mod outside;
mod redis;
mod repeats;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::dispatch::{self, Dispatcher};
use super::hand_off::{HandOff, Producing};
use super::predecessors::Predecessors;
use super::standstill::Standstill;
use super::{BATCHES_MAX, announce, disabling, fan_out, settle};
use crate::clock;
use crate::conditions::Conditions;
use crate::http::client::Client;
use crate::pipeline::consume::intake::{Intake, Retries};
use crate::schedule::Schedule;
use crate::store::backoffs::Backoffs;
use crate::store::failing::Failing;
use crate::store::log::DeliveryLog;
use crate::store::marks::MarkStreams;
use crate::store::settled::Recorder;
use crate::store::snapshot::Snapshots;
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, connection};
use crate::topics::Names;
use consumer::Consumer;
use outside::{Outside, World};

/// Everything must be settled within this time, which is simulated.
const SETTLED_MAX: Duration = Duration::from_secs(1_800);

/// Runs the worker for one life: until everything is settled, or for `longest`. Then it dies.
async fn live(world: &World, standstill: Arc<Standstill>, longest: Duration) -> bool {
    let (config, webhooks) = world.with(|outside| (outside.config.clone(), outside.webhooks.clone()));
    let (keys, names) = (Keys::new(&config.redis.prefix), Names::new(&config));
    let redis = connection::scripted::connection(&config.redis, redis::script(world));
    let conditions = Conditions::default();
    let snapshots = Snapshots::fixed(webhooks);
    let marks = MarkStreams::new(redis.clone(), keys.clone(), names.clone());
    let settler = settle::start(settle::Setup {
        recorder: Recorder::new(redis.clone(), keys.clone(), config.log.clone()),
        marks: marks.clone(),
        redis: config.redis.clone(),
        snapshots: snapshots.clone(),
        conditions: conditions.clone(),
        ended: CancellationToken::new().drop_guard(),
    });
    let store = WebhookStore::open(&config, redis.clone()).expect("the keys are valid");
    let (announcements, announced) = mpsc::channel(announce::WAITING_MAX);
    let dispatcher = Arc::new(Dispatcher::new(dispatch::Parts {
        config: config.clone(),
        snapshots,
        client: Client::scripted(&config.delivery, endpoints::script(world)),
        hand_off: HandOff::new(
            Producing::scripted(kafka::script(world), conditions.clone()),
            names.clone(),
            Schedule::new(&config.delivery).tiers(),
        ),
        settler,
        disabling: disabling::Disabling::new(
            store,
            Failing::new(redis.clone(), &keys),
            DeliveryLog::new(redis.clone(), keys.clone()),
            config.webhooks.disable_after,
        ),
        backoffs: Backoffs::new(redis.clone(), &keys),
        announcements,
        conditions: conditions.clone(),
    }));
    tokio::spawn(dispatcher.clone().sweep());
    tokio::spawn(async move {
        let mut announced = announced;
        while announced.recv().await.is_some() {}
    });
    tokio::spawn(kafka::produce_events(world.clone()));
    let predecessors = Predecessors { marks: marks.clone(), conditions };
    for is_of_events in [true, false] {
        let (batches, decoded) = mpsc::channel(BATCHES_MAX);
        let parking = dispatcher.parking(is_of_events);
        tokio::spawn(fan_out::run(dispatcher.clone(), predecessors.clone(), parking, decoded));
        let intake = match is_of_events {
            true => Intake::Events { limits: crate::event::Limits::new(&config) },
            false => Intake::Retries(Retries::new(&config)),
        };
        let consumer = Consumer::new(world.clone(), is_of_events, intake, batches, marks.clone(), standstill.clone());
        tokio::spawn(consumer.run());
    }
    tokio::time::timeout(longest, world.settled()).await.is_ok()
}

/// Runs a seed to its end, and returns what went wrong, and a trace of all that happened outside.
fn simulate(seed: u64, standstill: &Arc<Standstill>) -> (Vec<String>, Vec<String>) {
    let world = World::of(seed);
    crate::chance::seeded::begin(seed);
    let mut now = Duration::from_secs(1_700_000_000);
    let deaths = world.with(Outside::deaths);
    let lives = deaths.into_iter().chain([SETTLED_MAX]);
    for longest in lives {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let is_settled = runtime.block_on(async {
            clock::simulated::begin(now);
            let is_settled = live(&world, standstill.clone(), longest).await;
            now = Duration::from_millis(clock::now_ms_up().unsigned_abs());
            is_settled
        });
        // The process dies: its tasks end where they wait.
        drop(runtime);
        if is_settled {
            break;
        }
        world.with(Outside::died);
    }
    world.with(|outside| (outside.verdict(), std::mem::take(&mut outside.trace)))
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("it is a number"))
}

#[test]
fn no_seed_loses_a_delivery_or_sends_it_twice_or_early() {
    let (first, seeds) = (number("SIMULATED_FIRST", 1), number("SIMULATED_SEEDS", 300));
    let halves = [(first, seeds.div_ceil(2)), (first + seeds.div_ceil(2), seeds / 2)];
    std::thread::scope(|scope| {
        for (first, count) in halves {
            scope.spawn(move || {
                let standstill = Standstill::watch(Duration::from_secs(3_600)).expect("a thread starts");
                for seed in first..first + count {
                    let (broken, trace) = simulate(seed, &standstill);
                    assert!(broken.is_empty(), "seed {seed}: {broken:#?}\n{}", trace.join("\n"));
                }
            });
        }
    });
}
