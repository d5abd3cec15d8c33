//! A backlog of very many events: the worker's memory while they wait, and its rate at the beginning and at the end.

use std::time::{Duration, Instant};

use optio_webhooks::event::EventType;

use crate::rig::course::paths;
use crate::rig::process::Process;
use crate::rig::receiver;
use crate::rig::world::World;

/// The backlog is measured in this many parts.
const PARTS: usize = 10;

/// What the worker needs for a backlog.
pub struct Figures {
    /// The peak of the resident memory, in MiB.
    pub peak_mib: f64,
    /// The resident memory at the end, against that after the second part.
    pub growth: f64,
    /// The rate in the last part, against that in the second. The first one has the start.
    pub last_rate: f64,
}

/// Writes `waiting` events for one webhook, and then starts a worker that delivers all of them.
pub async fn run(waiting: usize, start: impl FnOnce(&World) -> Process) -> Figures {
    let world = World::new(&[]).await;
    let at = receiver::free_address();
    let _receiver = Process::role("receiver", &[at.to_string()]);
    world.webhooks(at, &paths()[..1], &[EventType::TaskCompleted]).await;
    world.emit(EventType::TaskCompleted, waiting).await;
    let mut worker = start(&world);
    let (mut rates, mut memory_mib) = (Vec::new(), Vec::new());
    for part in 1..=PARTS {
        let (began, before) = (Instant::now(), receiver::total(at));
        while receiver::total(at) < (waiting * part / PARTS) as u64 {
            worker.assert_alive();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        rates.push((receiver::total(at) - before) as f64 / began.elapsed().as_secs_f64());
        memory_mib.push(worker.memory_mib().expect("the worker runs"));
        println!("  part {part}: {:.0}/s, {:.0} MiB", rates[part - 1], memory_mib[part - 1]);
    }
    Figures {
        peak_mib: worker.memory_peak_mib().expect("the worker runs"),
        growth: memory_mib[PARTS - 1] / memory_mib[1],
        last_rate: rates[PARTS - 1] / rates[1],
    }
}
