//! Faults in random order under a steady load, with a ledger of its own: every event has arrived at every webhook, or is a
//! dead letter.
//!
//! A seed decides which faults come and when. `make chaos` runs one seed after another for a quarter of an hour; `make test`
//! runs one. `CHAOS_SEED=7 make chaos` begins with another seed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use optio_webhooks::delivery::DeliveryId;
use optio_webhooks::event::EventType;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::producer::FutureRecord;

use crate::harness::service::Service;
use crate::harness::worker::Worker;
use crate::harness::world::header;
use crate::harness::{Reply, World, eventually};

/// The most requests in flight at a worker, and so the most that one crash repeats.
const IN_FLIGHT_MAX: usize = 64;
/// How long a worker stands still: longer than the session timeout of the tests.
const FREEZE: Duration = Duration::from_secs(8);

/// What is done to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fault {
    /// A worker is killed, and another starts.
    Kill,
    /// A worker drains, and another starts.
    Drain,
    /// A worker stands still for longer than its session, and goes on as a zombie.
    Freeze,
    /// Another worker joins.
    Join,
    /// Redis stops and starts again with its data.
    RedisHalts,
    /// Redis answers reads and refuses writes, because a replica is missing.
    RedisReadOnly,
    /// Redis answers reads and refuses writes, because its memory is full.
    RedisFull,
    /// The broker stops and starts again.
    BrokerHalts,
    /// Records come that are no transitions.
    Hostile,
    /// Every endpoint answers 503 for a while.
    Outage,
}

const FAULTS: [Fault; 10] = [
    Fault::Kill,
    Fault::Drain,
    Fault::Freeze,
    Fault::Join,
    Fault::RedisHalts,
    Fault::RedisReadOnly,
    Fault::RedisFull,
    Fault::BrokerHalts,
    Fault::Hostile,
    Fault::Outage,
];

/// What a run did and found.
#[derive(Debug, Default)]
struct Figures {
    faults: HashMap<Fault, usize>,
    events: usize,
    hostile: usize,
    delivered: usize,
    dead: usize,
    repeated: usize,
    lost: Vec<String>,
}

/// The deliveries that receivers accepted, each with how often.
type Accepted = Arc<Mutex<HashMap<String, usize>>>;

struct Chaos {
    random: StdRng,
    world: World,
    redis: Service,
    broker: Service,
    workers: Vec<Worker>,
    outage: Arc<AtomicBool>,
    figures: Figures,
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_lose_no_event() {
    let number = |name: &str, default: u64| std::env::var(name).ok().map_or(default, |text| text.parse().unwrap());
    let (first, seconds, faults) = (number("CHAOS_SEED", 1), number("CHAOS_SECONDS", 0), number("CHAOS_FAULTS", 10));
    let began = Instant::now();
    let (mut all, mut repeated, mut seeds) = (0, 0, 0);
    for seed in first.. {
        let figures = run(seed, faults as usize).await;
        println!("seed {seed}: {figures:?}");
        all += figures.faults.values().sum::<usize>();
        repeated += figures.repeated;
        seeds += 1;
        assert!(figures.lost.is_empty(), "seed {seed} lost {:?}", figures.lost);
        let of = |fault| figures.faults.get(&fault).copied().unwrap_or(0);
        let crashes = of(Fault::Kill) + of(Fault::Freeze) + of(Fault::RedisHalts) + of(Fault::BrokerHalts);
        assert!(figures.repeated <= crashes * IN_FLIGHT_MAX, "seed {seed} repeated {}", figures.repeated);
        if began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
    }
    println!("{all} faults over {seeds} seeds: 0 lost, {repeated} repeated");
}

async fn run(seed: u64, faults: usize) -> Figures {
    let (redis, broker) = tokio::task::block_in_place(|| (Service::redis(), Service::kafka()));
    let world = World::with(&[
        ("kafka.brokers", broker.address.as_str()),
        ("redis.url", redis.address.as_str()),
        ("worker.in_flight_max", &IN_FLIGHT_MAX.to_string()),
        ("delivery.timeout", "2s"),
        ("topics.partitions", "4"),
    ])
    .await;
    let mut webhooks = Vec::new();
    for path in ["/healthy", "/flaky", "/dead"] {
        webhooks.push(world.webhook(path, &EventType::TASKS).await);
    }
    let (accepted, outage) = (Accepted::default(), Arc::new(AtomicBool::new(false)));
    world.receiver.answer({
        let (accepted, outage) = (accepted.clone(), outage.clone());
        move |request| {
            let fails = outage.load(Ordering::Relaxed)
                || request.path == "/dead"
                || (request.path == "/flaky" && request.attempt() == 1);
            if !fails {
                *accepted.lock().unwrap().entry(request.delivery()).or_default() += 1;
            }
            Reply::status(if fails { 503 } else { 200 }).after(Duration::from_millis(5))
        }
    });
    let worker = world.worker().await;
    let mut chaos = Chaos {
        random: StdRng::seed_from_u64(seed),
        world,
        redis,
        broker,
        workers: vec![worker],
        outage,
        figures: Figures::default(),
    };
    let mut written = Vec::new();
    // Every fault comes once before any comes twice.
    let mut left: Vec<Fault> = Vec::new();
    for _ in 0..faults {
        if left.is_empty() {
            left = FAULTS.to_vec();
        }
        let fault = left.swap_remove(chaos.random.random_range(0..left.len()));
        let count = chaos.random.random_range(50..200);
        let sent = chaos.load(count, &mut written);
        chaos.inject(fault).await;
        for sent in sent {
            sent.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
        *chaos.figures.faults.entry(fault).or_default() += 1;
    }
    chaos.world.settled().await;
    chaos.count(&written, &webhooks, &accepted.lock().unwrap())
}

impl Chaos {
    /// Writes events while the fault happens. Each has an id of its own.
    fn load(&self, count: usize, written: &mut Vec<String>) -> Vec<rdkafka::producer::DeliveryFuture> {
        let topic = self.world.names().events().to_owned();
        let event = |_| {
            let value = World::transition(EventType::TaskCompleted);
            let (id, key) = (value["id"].as_str().unwrap().to_owned(), value["taskId"].as_str().unwrap().to_owned());
            written.push(id);
            let value = value.to_string();
            let record = FutureRecord::to(&topic).key(&key).payload(&value);
            self.world.producer().send_result(record).map_err(|(error, _)| error).unwrap()
        };
        (0..count).map(event).collect()
    }

    async fn inject(&mut self, fault: Fault) {
        let pause = Duration::from_millis(self.random.random_range(200..2_000));
        let chosen = self.random.random_range(0..self.workers.len());
        match fault {
            Fault::Kill => {
                self.workers[chosen].kill();
                self.workers[chosen] = Worker::start(&self.world.environment());
            }
            Fault::Drain => {
                // While Redis or the broker is away a drain can't finish, but here both are there.
                assert!(self.workers[chosen].terminate().await.success(), "{}", self.workers[chosen].log());
                self.workers[chosen] = Worker::start(&self.world.environment());
            }
            Fault::Freeze => {
                self.workers[chosen].signal("-STOP");
                tokio::time::sleep(FREEZE).await;
                self.workers[chosen].signal("-CONT");
            }
            Fault::Join if self.workers.len() < 3 => self.workers.push(Worker::start(&self.world.environment())),
            Fault::Join => {}
            Fault::RedisHalts => {
                tokio::task::block_in_place(|| self.redis.halt());
                tokio::time::sleep(pause).await;
                tokio::task::block_in_place(|| self.redis.resume());
            }
            Fault::RedisReadOnly => self.redis_refuses("min-replicas-to-write", "1", "0", pause).await,
            Fault::RedisFull => self.redis_refuses("maxmemory", "1", "0", pause).await,
            Fault::BrokerHalts => {
                tokio::task::block_in_place(|| self.broker.halt());
                tokio::time::sleep(pause).await;
                tokio::task::block_in_place(|| self.broker.resume());
            }
            Fault::Hostile => {
                for _ in 0..10 {
                    let length = self.random.random_range(0..2_000);
                    let mut bytes: Vec<u8> = (0..length).map(|_| self.random.random()).collect();
                    // None of these is a transition, whatever the bytes are.
                    bytes.insert(0, 0xff);
                    self.world.write("hostile", Some(&bytes)).await;
                    self.figures.hostile += 1;
                }
            }
            Fault::Outage => {
                self.outage.store(true, Ordering::Relaxed);
                tokio::time::sleep(pause / 4).await;
                self.outage.store(false, Ordering::Relaxed);
            }
        }
        tokio::time::sleep(pause).await;
    }

    async fn redis_refuses(&self, setting: &str, bad: &str, good: &str, pause: Duration) {
        for value in [bad, good] {
            // The connection of the test may be an old one that Redis closed when it halted.
            eventually("Redis takes the setting", async || {
                let mut redis = self.world.redis.clone();
                redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).query_async::<()>(&mut redis).await.ok()
            })
            .await;
            tokio::time::sleep(pause).await;
        }
    }

    fn count(
        mut self,
        written: &[String],
        webhooks: &[optio_webhooks::webhook::WebhookId],
        accepted: &HashMap<String, usize>,
    ) -> Figures {
        let dead = self.world.dead_letters();
        let ids = dead.iter().map(|letter| header(letter, "optio-delivery-id"));
        // A hostile record is a dead letter without a delivery.
        let deliveries: HashSet<String> = ids.filter(|id| !id.is_empty()).collect();
        let malformed = dead.iter().filter(|letter| header(letter, "optio-dead-reason") == "malformed").count();
        let figures = &mut self.figures;
        figures.events = written.len();
        figures.delivered = accepted.len();
        figures.dead = deliveries.len();
        figures.repeated = accepted.values().map(|times| times - 1).sum();
        for event in written {
            for webhook in webhooks {
                let delivery = DeliveryId::of(event, *webhook).to_string();
                if !accepted.contains_key(&delivery) && !deliveries.contains(&delivery) {
                    figures.lost.push(format!("{event} for {webhook}"));
                }
            }
        }
        if malformed < figures.hostile {
            figures.lost.push(format!("{malformed} of {} hostile records are dead letters", figures.hostile));
        }
        self.figures
    }
}
