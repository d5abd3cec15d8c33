//! The processor time of a delivery with 1, 100 and 10,000 webhooks, spread over the five event types.

use std::time::Duration;

use optio_webhooks::event::EventType;

use crate::rig::process::Process;
use crate::rig::receiver;
use crate::rig::world::World;
use crate::rig::{figure, median, setting};

/// The number of deliveries of one run, for every number of webhooks.
const DELIVERIES: usize = 40_000;

pub async fn compare() {
    println!("processor time per delivery as the number of webhooks grows, against one webhook");
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..setting("ROUNDS", 3) {
        for (at, webhooks) in [1, 100, 10_000].into_iter().enumerate() {
            costs[at].push(run(webhooks).await);
        }
    }
    let costs = costs.map(|mut costs| median(&mut costs));
    for (webhooks, cost) in [1, 100, 10_000].into_iter().zip(costs) {
        figure(
            "isolation",
            &format!("processor time per delivery with {webhooks} webhooks, against one"),
            cost / costs[0],
            "",
        );
    }
}

async fn run(webhooks: usize) -> f64 {
    let world = World::new(&[]).await;
    let at = receiver::free_address();
    let _receiver = Process::role("receiver", &[at.to_string()]);
    // The webhooks are spread over the event types, so an event matches a fifth of them.
    let share = webhooks.div_ceil(EventType::TASKS.len());
    let paths: Vec<String> = (0..share).map(|number| format!("/growth/{number}")).collect();
    for event in EventType::TASKS.into_iter().take(webhooks) {
        world.webhooks(at, &paths, &[event]).await;
    }
    let mut worker = world.worker();
    world.emit(EventType::TaskCompleted, 1).await;
    until(at, share, &mut worker).await;
    let before = worker.processor_time();
    let events = DELIVERIES / share;
    world.emit(EventType::TaskCompleted, events).await;
    until(at, (events + 1) * share, &mut worker).await;
    let cost = worker.processor_time().saturating_sub(before);
    cost.as_micros() as f64 / (events * share) as f64
}

async fn until(at: std::net::SocketAddr, count: usize, worker: &mut Process) {
    while receiver::total(at) < count as u64 {
        worker.assert_alive();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
