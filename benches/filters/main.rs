//! What filters cost: events for many webhooks with a filter each, against the same webhooks without.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench filters`. Both take turns
//! in one run. Environment variables and their defaults: `ROUNDS` (5), `WEBHOOKS` (10000), `EVENTS` per round (2000).
//!
//! Each event goes to one webhook, so what is measured is the choice of recipients and not the requests. With a filter,
//! all webhooks subscribe to the event and the filters of all others refuse it; without one, the others subscribe to
//! another event type.

#[path = "../rig/mod.rs"]
mod rig;

use std::net::SocketAddr;

use optio_webhooks::clock::now_ms;
use optio_webhooks::event::EventType;
use optio_webhooks::store::connection;
use optio_webhooks::store::webhooks::WebhookStore;
use optio_webhooks::webhook::Webhook;
use optio_webhooks::webhook::filter::Filter;
use serde_json::json;

use rig::process::Process;
use rig::receiver;
use rig::world::World;
use rig::{figure, median, setting};

fn main() {
    rig::run(&[], compare());
}

/// What the webhooks have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Every webhook gets every event.
    All,
    /// Every webhook gets every event, because its filter matches.
    AllFiltered,
    /// Only one webhook gets the events, because the others subscribe to another type.
    One,
    /// Only one webhook gets the events, because the filters of the others refuse them.
    OneFiltered,
}

async fn compare() {
    let (rounds, webhooks, events) = (setting("ROUNDS", 5), setting("WEBHOOKS", 10_000), setting("EVENTS", 2_000));
    let (mut matching, mut refusing) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        // An event for all webhooks makes as many requests, so there are few of these.
        let few = (events / 500).max(2);
        let all = run(Kind::All, webhooks, few).await;
        let all_filtered = run(Kind::AllFiltered, webhooks, few).await;
        let one = run(Kind::One, webhooks, events).await;
        let one_filtered = run(Kind::OneFiltered, webhooks, events).await;
        println!(
            "round {round}: processor time per event to all: {all:.0} us, with filters {all_filtered:.0} us; \
             to one: {one:.0} us, with filters {one_filtered:.0} us"
        );
        matching.push(all_filtered / all);
        refusing.push((one_filtered - one) / webhooks as f64);
    }
    println!();
    let name = format!("an event for {webhooks} webhooks with filters, against one without");
    figure("filters", &name, median(&mut matching), "");
    figure("filters", "one filter that refuses an event", median(&mut refusing), "us");
}

/// The processor time of the worker for each event, in microseconds.
async fn run(kind: Kind, webhooks: usize, events: usize) -> f64 {
    let world = World::new(&[("kafka.properties.session_timeout_ms", "6000")]).await;
    let at = receiver::free_address();
    let _receiver = Process::role("receiver", &[at.to_string()]);
    store(&world, at, kind, webhooks).await;
    let each = if matches!(kind, Kind::All | Kind::AllFiltered) { webhooks } else { 1 };
    world.emit(EventType::TaskCompleted, 1).await;
    let mut worker = world.worker();
    until(at, each as u64, &mut worker).await;
    let before = worker.processor_time();
    world.emit(EventType::TaskCompleted, events).await;
    until(at, ((events + 1) * each) as u64, &mut worker).await;
    worker.processor_time().saturating_sub(before).as_micros() as f64 / events as f64
}

async fn store(world: &World, at: SocketAddr, kind: Kind, webhooks: usize) {
    let redis = connection::open(&world.config.redis).expect("the URL is valid");
    let store = WebhookStore::open(&world.config, redis).expect("the keys are valid");
    let filter = |agent: &str| {
        let json = json!({ "all": [
            { "field": "task.repoUrl", "glob": "https://github.com/acme/*" },
            { "field": "task.agentType", "oneOf": [agent] },
        ] });
        Some(Filter::read(json).expect("the filter is valid"))
    };
    for number in 0..webhooks {
        let url = format!("http://{at}/w{number}").parse().expect("the URL is valid");
        let mut webhook = Webhook::new(url, vec![EventType::TaskCompleted], now_ms());
        match kind {
            Kind::All => {}
            Kind::AllFiltered => webhook.filter = filter("claude-code"),
            Kind::One if number > 0 => webhook.events = vec![EventType::TaskFailed],
            Kind::OneFiltered => webhook.filter = filter(if number == 0 { "claude-code" } else { "another" }),
            Kind::One => {}
        }
        store.put(&webhook).await.expect("Redis answers");
    }
}

async fn until(at: SocketAddr, count: u64, worker: &mut Process) {
    while receiver::total(at) < count {
        worker.assert_alive();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
