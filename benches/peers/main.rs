//! The same deliveries by other queues and consumers, each as one of its users would set it up.
//!
//! `make bench`, or with Kafka and Redis at hand `KAFKA_BROKERS=… REDIS_URL=… cargo bench --bench peers`. All take turns in
//! one run with the bare consumer and the worker, and only the ratios matter. A peer whose language isn't installed is left
//! out. Environment variables and their defaults: `ROUNDS` (3); `EVENTS` per round, each for four webhooks (10000); `ONLY`,
//! one peer, by the name of its folder.

#[path = "../rig/mod.rs"]
mod rig;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use rig::course::{Figures, WEBHOOKS, run, run_from};
use rig::process::Process;
use rig::world::{SECRET, World};
use rig::{figure, floor, median, setting};

/// The bare consumer uses the same allocator as the worker, so that only the work differs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Another program that sends webhooks.
struct Peer {
    name: &'static str,
    /// The folder in `benches/peers`. Its scripts `build` and `start` build and run the peer.
    folder: &'static str,
    /// The command that builds it.
    needs: &'static str,
    /// Whether it takes its events from a queue in Redis, which its script `produce` fills. Others read the topic.
    has_queue: bool,
}

const PEERS: [Peer; 4] = [
    Peer { name: "Benthos", folder: "benthos", needs: "go", has_queue: false },
    Peer { name: "BullMQ", folder: "bullmq", needs: "npm", has_queue: true },
    Peer { name: "Parallel Consumer", folder: "parallel-consumer", needs: "mvn", has_queue: false },
    Peer { name: "Spring Kafka", folder: "spring", needs: "mvn", has_queue: false },
];

fn main() {
    rig::run(&[("floor", floor::run)], compare());
}

async fn compare() {
    let (rounds, events) = (setting("ROUNDS", 3), setting("EVENTS", 10_000));
    let only = std::env::var("ONLY").unwrap_or_default();
    let peers = PEERS.iter().filter(|peer| only.is_empty() || only == peer.folder);
    let peers: Vec<&Peer> = peers.filter(|peer| peer.is_built()).collect();
    let mut of_worker = Ratios::default();
    let mut of_peers: Vec<Ratios> = peers.iter().map(|_| Ratios::default()).collect();
    for round in 1..=rounds {
        let bare = run(events, |world, at| floor::start(&world.config, at, WEBHOOKS)).await;
        println!("round {round}: the bare consumer: {}", shown(&bare));
        of_worker.add(round, "the worker", &run(events, |world, _| world.worker()).await, &bare);
        for (peer, ratios) in peers.iter().zip(&mut of_peers) {
            ratios.add(round, peer.name, &peer.run(events).await, &bare);
        }
    }
    println!();
    of_worker.print("the worker");
    for (peer, ratios) in peers.iter().zip(&mut of_peers) {
        ratios.print(peer.name);
    }
}

impl Peer {
    /// Builds it. Returns false if what it needs isn't installed.
    fn is_built(&self) -> bool {
        if Command::new(self.needs).arg("--help").output().is_err() {
            println!("{} is left out: {} is not installed", self.name, self.needs);
            return false;
        }
        let built = Command::new(self.script("build")).status().expect("the script starts");
        assert!(built.success(), "{} could not be built", self.name);
        true
    }

    fn script(&self, name: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(self.folder).join(name)
    }

    async fn run(&self, events: usize) -> Figures {
        let start = |world: &World, at: SocketAddr| Process::start(&mut self.command("start", world, at));
        if !self.has_queue {
            return run(events, start).await;
        }
        let emit = async |world: &World, count: usize| {
            // Only the worker sends, so any address serves the producer.
            let mut produce = self.command("produce", world, rig::receiver::free_address());
            let produced = tokio::task::block_in_place(|| produce.arg(count.to_string()).status());
            assert!(produced.expect("the script starts").success(), "the events are in the queue");
        };
        run_from(emit, events, start).await
    }

    fn command(&self, script: &str, world: &World, at: SocketAddr) -> Command {
        let kafka = &world.config.kafka;
        let mut command = Command::new(self.script(script));
        command.env("KAFKA_BROKERS", &kafka.brokers).env("TOPIC", &kafka.topic).env("GROUP", &kafka.group);
        command.env("REDIS_URL", world.config.redis.url.expose()).env("QUEUE", &kafka.group);
        command.env("RECEIVER", at.to_string()).env("WEBHOOKS", WEBHOOKS.to_string()).env("SECRET", SECRET);
        command
    }
}

/// The figures of one sender against those of the bare consumer in the same round.
#[derive(Default)]
struct Ratios {
    processor: Vec<f64>,
    rate: Vec<f64>,
    memory_mib: Vec<f64>,
}

impl Ratios {
    fn add(&mut self, round: usize, name: &str, figures: &Figures, bare: &Figures) {
        println!("round {round}: {name}: {}", shown(figures));
        self.processor.push(figures.processor_us / bare.processor_us);
        self.rate.push(figures.rate / bare.rate);
        self.memory_mib.push(figures.memory_mib);
    }

    fn print(&mut self, name: &str) {
        let what = |what: &str| format!("{name}: {what}");
        figure(
            "peers",
            &what("processor time per delivery, against the bare consumer"),
            median(&mut self.processor),
            "",
        );
        figure("peers", &what("rate, against the bare consumer"), median(&mut self.rate), "");
        figure("peers", &what("peak memory"), median(&mut self.memory_mib), "MiB");
    }
}

fn shown(figures: &Figures) -> String {
    let Figures { processor_us, rate, memory_mib } = figures;
    format!("{processor_us:.0} us of processor time per delivery, {rate:.0}/s, {memory_mib:.0} MiB")
}
