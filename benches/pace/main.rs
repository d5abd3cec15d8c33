//! How quick the worker is, and what its parts cost: latency at half of the highest rate, the cost of a delivery to eight
//! webhooks, of a deferral and of a dead tenth of all endpoints, the first delivery after a start, and the end after
//! SIGTERM.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench pace`. Environment
//! variables and their defaults: `ROUNDS` (7); `DELIVERIES` of a round (20000); `ONLY`, one part: `latency`, `width`,
//! `deferrals`, `tenth` or `ends`.

#[path = "../rig/mod.rs"]
mod rig;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use optio_webhooks::event::EventType;

use rig::process::Process;
use rig::world::World;
use rig::{figure, floor, median, receiver, setting};

/// The bare consumer uses the same allocator as the worker, so that only the work differs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    rig::run(&[("floor", floor::run)], measure());
}

async fn measure() {
    let (rounds, deliveries) = (setting("ROUNDS", 7), setting("DELIVERIES", 20_000));
    let only = std::env::var("ONLY").unwrap_or_default();
    let parts = ["", "latency", "width", "deferrals", "tenth", "ends"];
    assert!(parts.contains(&only.as_str()), "ONLY={only}: must be latency, width, deferrals, tenth or ends");
    let wanted = |part: &str| only.is_empty() || only == part;
    if wanted("latency") {
        latency(rounds, deliveries).await;
    }
    if wanted("width") {
        width(rounds, deliveries).await;
    }
    if wanted("deferrals") {
        deferrals(rounds, deliveries).await;
    }
    if wanted("tenth") {
        dead_tenth(rounds, deliveries).await;
    }
    if wanted("ends") {
        start_and_end(rounds).await;
    }
}

/// A topic with `webhooks` webhooks that a process reads, and that has delivered a first event.
struct Stage {
    world: World,
    at: SocketAddr,
    process: Process,
    delivered: usize,
    webhooks: usize,
    _receiver: Process,
}

impl Stage {
    async fn new(webhooks: usize, start: impl FnOnce(&World, SocketAddr) -> Process) -> Self {
        Self::with(&[], webhooks, start).await
    }

    /// A stage with `settings`.
    async fn with(
        settings: &[(&str, &str)],
        webhooks: usize,
        start: impl FnOnce(&World, SocketAddr) -> Process,
    ) -> Self {
        Self::of(settings, webhooks, &[EventType::TaskCompleted], start).await
    }

    /// A stage whose webhooks subscribe to `events`.
    async fn of(
        settings: &[(&str, &str)],
        webhooks: usize,
        events: &[EventType],
        start: impl FnOnce(&World, SocketAddr) -> Process,
    ) -> Self {
        let world = World::new(&[&[("kafka.properties.session_timeout_ms", "6000")], settings].concat()).await;
        let at = receiver::free_address();
        let _receiver = Process::role("receiver", &[at.to_string()]);
        let paths: Vec<String> = (0..webhooks).map(|number| format!("/{number}")).collect();
        world.webhooks(at, &paths, events).await;
        world.emit(events[0], 1).await;
        let process = start(&world, at);
        let mut stage = Self { world, at, process, delivered: 0, webhooks, _receiver };
        stage.until(1).await;
        stage
    }

    /// Waits until `events` more events are delivered.
    async fn until(&mut self, events: usize) {
        self.delivered += events * self.webhooks;
        while receiver::total(self.at) < self.delivered as u64 {
            self.process.assert_alive();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The processor time and the time that `events` events take.
    async fn burst(&mut self, events: usize) -> (Duration, Duration) {
        self.burst_of(EventType::TaskCompleted, events).await
    }

    /// The processor time and the time that `events` events of one type take.
    async fn burst_of(&mut self, event: EventType, events: usize) -> (Duration, Duration) {
        let (before, began) = (self.process.processor_time(), Instant::now());
        self.world.emit(event, events).await;
        self.until(events).await;
        (self.process.processor_time().saturating_sub(before), began.elapsed())
    }
}

/// The latency of the worker against that of the bare consumer, at half of the bare consumer's rate.
async fn latency(rounds: usize, deliveries: usize) {
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut bare = Stage::new(4, |world, at| floor::start(&world.config, at, 4)).await;
        let events = deliveries / 4;
        let (_, took) = bare.burst(events).await;
        let per_second = (events as f64 / took.as_secs_f64() / 2.0) as usize;
        let mut worker = Stage::new(4, |world, _| world.worker()).await;
        worker.burst(events).await;
        let mut of = Vec::new();
        for stage in [&mut bare, &mut worker] {
            receiver::latencies_us(stage.at);
            stage.world.emit_evenly(EventType::TaskCompleted, events, per_second).await;
            stage.until(events).await;
            let latencies = receiver::latencies_us(stage.at);
            let at_share = |share: usize| latencies[(latencies.len() * share / 100).min(latencies.len() - 1)] as f64;
            of.push((at_share(50), at_share(99)));
        }
        println!(
            "at {per_second} events/s: {:.0} us and {:.0} us against {:.0} us and {:.0} us",
            of[1].0, of[1].1, of[0].0, of[0].1
        );
        p50.push(of[1].0 / of[0].0);
        p99.push(of[1].1 / of[0].1);
    }
    figure("pace", "median latency at half of the highest rate, against the bare consumer", median(&mut p50), "");
    figure("pace", "p99 latency at half of the highest rate, against the bare consumer", median(&mut p99), "");
}

/// The cost of a delivery if an event goes to eight webhooks, against one: with the defaults, where eight endpoints may
/// have eight times as many requests in flight, and at the same total number of requests in flight.
async fn width(rounds: usize, deliveries: usize) {
    let (mut with_defaults, mut at_once) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let cost = async |webhooks: usize, settings: &[(&str, &str)]| {
            let mut stage = Stage::with(settings, webhooks, |world, _| world.worker()).await;
            stage.burst(deliveries / webhooks).await.0.as_secs_f64()
        };
        let one = cost(1, &[]).await;
        with_defaults.push(cost(8, &[]).await / one);
        at_once.push(cost(8, &[("delivery.endpoint_in_flight_max", "8")]).await / one);
    }
    let name = "processor time per delivery with 8 webhooks for an event, against one";
    figure("pace", name, median(&mut with_defaults), "");
    figure("pace", &format!("{name}, at the same total number of requests in flight"), median(&mut at_once), "");
}

/// The cost of a deferral, against a delivery: an endpoint that refuses all connections opens its circuit, and its
/// deliveries are written to a retry tier.
async fn deferrals(rounds: usize, deliveries: usize) {
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let mut stage = Stage::new(1, |world, _| world.worker()).await;
        let delivered = stage.burst(deliveries).await.0.as_secs_f64();
        // The second webhook is the only one that gets failed tasks.
        stage.world.webhooks(receiver::free_address(), &["/".to_owned()], &[EventType::TaskFailed]).await;
        while !stage.world.has_open_circuit().await {
            stage.world.emit(EventType::TaskFailed, 20).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        stage.world.committed(&mut stage.process).await;
        let (before, waiting) = (stage.process.processor_time(), stage.world.waiting());
        stage.world.emit(EventType::TaskFailed, deliveries).await;
        stage.world.committed(&mut stage.process).await;
        let deferred = stage.process.processor_time().saturating_sub(before).as_secs_f64();
        let written = stage.world.waiting() - waiting;
        assert!(written >= deliveries as i64, "{written} of {deliveries} deliveries are in a retry tier");
        let micros = |seconds: f64| seconds * 1e6 / deliveries as f64;
        println!("{:.1} us for a deferral against {:.1} us for a delivery", micros(deferred), micros(delivered));
        ratios.push(deferred / delivered);
    }
    figure("pace", "processor time per deferral to a retry tier, against a delivery", median(&mut ratios), "");
}

/// What a dead tenth of all endpoints costs the other nine: both kinds of events go to the same nine endpoints, and one
/// kind also goes to a tenth one that refuses all connections.
async fn dead_tenth(rounds: usize, deliveries: usize) {
    const HEALTHY: usize = 9;
    // Their events have the same fields and nearly the same size.
    let (without, with) = (EventType::TaskPrOpened, EventType::TaskNeedsAttention);
    let mut stage = Stage::of(&[], HEALTHY, &[without, with], |world, _| world.worker()).await;
    stage.world.webhooks(receiver::free_address(), &["/".to_owned()], &[with]).await;
    while !stage.world.has_open_circuit().await {
        stage.burst_of(with, 20).await;
    }
    // The difference is small, so each burst has as many events as others have deliveries.
    let events = deliveries;
    let (mut processor, mut duration, mut deferral) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // The two kinds take turns in going first.
        let order = if round % 2 == 0 { [without, with] } else { [with, without] };
        let mut of = [(0.0, 0.0); 2];
        for kind in order {
            let before = stage.process.processor_time();
            let (_, took) = stage.burst_of(kind, events).await;
            stage.world.committed(&mut stage.process).await;
            let used = stage.process.processor_time().saturating_sub(before);
            of[usize::from(kind == with)] = (used.as_secs_f64(), took.as_secs_f64());
        }
        let [(healthy, healthy_took), (all, all_took)] = of;
        processor.push(all / healthy);
        duration.push(all_took / healthy_took);
        deferral.push((all / healthy - 1.0) * HEALTHY as f64);
    }
    let name = "nine endpoints beside a dead tenth one, against the nine alone";
    figure("pace", &format!("processor time of {name}"), median(&mut processor), "");
    figure("pace", &format!("duration of {name}"), median(&mut duration), "");
    figure("pace", "processor time per deferral of an event that is also delivered", median(&mut deferral), "");
}

/// The time from a start to the first delivery, and from SIGTERM to the end.
async fn start_and_end(rounds: usize) {
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = std::cell::Cell::new(Instant::now());
        let mut stage = Stage::new(1, |world, _| {
            began.set(Instant::now());
            world.worker()
        })
        .await;
        starts.push(began.get().elapsed().as_secs_f64());
        stage.burst(1_000).await;
        ends.push(stage.process.terminate().as_secs_f64());
    }
    figure("pace", "from the start of the process to the first delivery", median(&mut starts), "s");
    figure("pace", "from SIGTERM to the end of the process", median(&mut ends), "s");
}
