//! The system under test: brokers, Redis, endpoints and workers, with proxies between them, and what is done to them.

mod offsets;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use optio_webhooks::event::EventType;
use optio_webhooks::kafka::clients;
use optio_webhooks::schedule::Schedule;
use optio_webhooks::webhook::Webhook;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rdkafka::Message as _;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{DeliveryFuture, FutureRecord};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::block_in_place;
use tokio::time::timeout;

use super::fault::{Fault, Part, Toxic};
use super::ledger::{Figures, Ledger, Requests};
use crate::harness::brokers::Brokers;
use crate::harness::endpoint::{self, Endpoint};
use crate::harness::odd::{Effect, odd_record};
use crate::harness::proxy::Proxy;
use crate::harness::service::Service;
use crate::harness::worker::Worker;
use crate::harness::world::header;
use crate::harness::{Reply, World, acl, eventually};

/// The most requests in flight at a worker, and so the most that one crash repeats.
const IN_FLIGHT_MAX: usize = 64;
/// The only events that the hostile endpoint gets, because each costs it seconds.
const RARE: EventType = EventType::TaskNeedsAttention;
/// How many lost deliveries are looked for in the topics.
const EXPLAINED: usize = 3;
/// The most workers.
const WORKERS_MAX: usize = 3;
/// The most partitions of the topic of events.
const PARTITIONS_MAX: usize = 8;
/// How long a worker stands still: longer than the session timeout of the tests.
const STANDSTILL: Duration = Duration::from_secs(8);
/// How long a request that began before its webhook was deleted may be on its way: `webhooks.staleness_max` and
/// `delivery.timeout`.
const DELETION_GRACE: Duration = Duration::from_secs(3);
/// How long everything may take to settle after the last fault. A Kafka client gives a frozen connection up after a minute.
const SETTLED_MAX: Duration = Duration::from_secs(240);

pub struct System {
    pub random: StdRng,
    pub ledger: Ledger,
    world: World,
    brokers: Brokers,
    redis: Service,
    redis_proxy: Proxy,
    endpoints_proxy: Proxy,
    hostile: Endpoint,
    workers: Vec<Worker>,
    outage: Arc<AtomicBool>,
    partitions: usize,
    odd: usize,
    doomed: usize,
}

impl System {
    pub async fn start(random: StdRng, brokers: u16) -> Self {
        let brokers = Brokers::start(brokers).await;
        let redis = block_in_place(Service::redis);
        let redis_proxy = Proxy::start(&redis.address).await;
        let world = World::with(&[
            ("kafka.brokers", brokers.direct.as_str()),
            ("redis.url", redis.address.as_str()),
            ("worker.in_flight_max", &IN_FLIGHT_MAX.to_string()),
            ("delivery.timeout", "2s"),
            ("topics.partitions", "4"),
        ])
        .await;
        let endpoints_proxy = Proxy::to(&world.receiver.address.to_string()).await;
        let outage = Arc::new(AtomicBool::new(false));
        let requests = Requests::default();
        answer(&world, requests.clone(), outage.clone());
        let hostile = Endpoint::start(hostile).await;
        let mut system = Self {
            random,
            ledger: Ledger { requests, ..Ledger::default() },
            world,
            brokers,
            redis,
            redis_proxy,
            endpoints_proxy,
            hostile,
            workers: Vec::new(),
            outage,
            partitions: 4,
            odd: 0,
            doomed: 0,
        };
        for path in ["/healthy", "/flaky", "/dead"] {
            let webhook = system.webhook(path);
            system.add(&webhook).await;
            system.ledger.webhooks.push((webhook.id, webhook.events));
        }
        let mut webhook = system.webhook("/hostile");
        webhook.url = system.hostile.url().parse().unwrap();
        webhook.events = vec![RARE];
        system.add(&webhook).await;
        system.ledger.webhooks.push((webhook.id, webhook.events));
        let mut worker = system.worker();
        worker.readiness(true).await;
        system.workers.push(worker);
        system
    }

    /// Starts a worker that reaches Kafka and Redis through the proxies.
    fn worker(&self) -> Worker {
        let mut environment = self.world.environment();
        environment.push(("OPTIO_WEBHOOKS__KAFKA__BROKERS".to_owned(), self.brokers.proxied.clone()));
        environment.push(("OPTIO_WEBHOOKS__REDIS__URL".to_owned(), self.redis_proxy.url()));
        Worker::start(&environment)
    }

    /// A webhook behind the proxy of the endpoints.
    fn webhook(&self, path: &str) -> Webhook {
        let mut webhook = self.world.unsaved(path, &EventType::TASKS);
        webhook.url = format!("http://{}{path}", self.endpoints_proxy.address).parse().unwrap();
        webhook
    }

    async fn add(&self, webhook: &Webhook) {
        // The connection of the test may be an old one that Redis closed when it halted.
        eventually("a webhook is added", async || self.world.store().put(webhook).await.ok()).await;
    }

    /// Writes events while a fault happens. Each has an id of its own.
    pub fn load(&mut self) -> Vec<DeliveryFuture> {
        let topic = self.world.names().events().to_owned();
        let count = self.random.random_range(50..200);
        let written = &mut self.ledger.written;
        let event = |number| {
            let kind = if number % 10 == 0 { RARE } else { EventType::TaskCompleted };
            let value = World::transition(kind);
            let (id, key) = (value["id"].as_str().unwrap().to_owned(), value["taskId"].as_str().unwrap().to_owned());
            written.push((id, kind));
            let value = value.to_string();
            let record = FutureRecord::to(&topic).key(&key).payload(&value);
            self.world.producer().send_result(record).map_err(|(error, _)| error).unwrap()
        };
        (0..count).map(event).collect()
    }

    /// Lets a fault happen, and waits for a moment after it.
    pub async fn inject(&mut self, fault: Fault) {
        let pause = Duration::from_millis(self.random.random_range(200..2_000));
        let chosen = self.random.random_range(0..self.workers.len());
        let broker = self.random.random_range(0..self.brokers.brokers.len());
        match fault {
            Fault::Kill => {
                self.workers[chosen].kill();
                self.workers[chosen] = self.worker();
            }
            Fault::Drain => {
                let status = self.workers[chosen].terminate().await;
                assert!(status.success(), "{}", self.workers[chosen].log());
                self.workers[chosen] = self.worker();
            }
            Fault::Freeze => {
                self.workers[chosen].signal("-STOP");
                tokio::time::sleep(STANDSTILL).await;
                self.workers[chosen].signal("-CONT");
            }
            Fault::Join if self.workers.len() < WORKERS_MAX => {
                let worker = self.worker();
                self.workers.push(worker);
            }
            Fault::Join => {
                let mut leaving = self.workers.swap_remove(chosen);
                assert!(leaving.terminate().await.success(), "{}", leaving.log());
            }
            Fault::RedisHalts => self.redis_is_away(Service::halt, Service::resume, pause).await,
            Fault::RedisDies => self.redis_is_away(Service::kill, Service::resume, pause).await,
            Fault::RedisFreezes => self.redis_is_away(Service::freeze, Service::thaw, pause).await,
            Fault::RedisReadOnly => self.redis_refuses("min-replicas-to-write", pause).await,
            Fault::RedisFull => self.redis_refuses("maxmemory", pause).await,
            Fault::RedisEmpty => self.redis_is_empty(pause).await,
            Fault::BrokerHalts => self.broker_is_away(broker, Service::halt, Service::resume, pause).await,
            Fault::BrokerDies => self.broker_is_away(broker, Service::kill, Service::resume, pause).await,
            Fault::BrokerFreezes => self.broker_is_away(broker, Service::freeze, Service::thaw, pause * 4).await,
            Fault::RetriesRefused => {
                let prefix = format!("{}.retry", self.world.names().events());
                block_in_place(|| acl::deny(&self.admin(), &prefix, acl::WRITE));
                tokio::time::sleep(pause).await;
                block_in_place(|| acl::clear(&self.admin()));
            }
            Fault::PartitionAdded if self.partitions < PARTITIONS_MAX => {
                self.partitions += 1;
                let events = self.world.names().events().to_owned();
                let partitions = NewPartitions::new(&events, self.partitions);
                let made = self.admin().create_partitions([&partitions], &AdminOptions::new()).await.unwrap();
                made[0].as_ref().unwrap();
            }
            Fault::PartitionAdded => {}
            Fault::TopicAnew => {
                // What a topic held is gone with it, so everything is settled first.
                self.settled().await;
                self.world.delete(&self.world.names().retry(2)).await;
                tokio::time::sleep(pause).await;
                self.world.recreate_topics(1).await;
            }
            Fault::OffsetsReset => self.offsets_are_reset().await,
            Fault::OffsetsExpire => self.offsets_expire().await,
            Fault::Hostile => self.odd_records().await,
            Fault::Outage => {
                self.outage.store(true, Ordering::Relaxed);
                tokio::time::sleep(pause / 4).await;
                self.outage.store(false, Ordering::Relaxed);
            }
            Fault::Deletion => self.deletion(pause).await,
            Fault::Network(part, toxic) => self.network(part, toxic, pause).await,
        }
        tokio::time::sleep(pause).await;
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        clients::producer(&self.world.config()).create().unwrap()
    }

    async fn redis_is_away(&self, away: fn(&Service), back: fn(&Service), pause: Duration) {
        block_in_place(|| away(&self.redis));
        tokio::time::sleep(pause).await;
        block_in_place(|| back(&self.redis));
    }

    async fn broker_is_away(&self, broker: usize, away: fn(&Service), back: fn(&Service), pause: Duration) {
        block_in_place(|| away(&self.brokers.brokers[broker]));
        tokio::time::sleep(pause).await;
        block_in_place(|| back(&self.brokers.brokers[broker]));
    }

    /// Asks Redis for something, however often its connection has to be made again.
    async fn redis<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        eventually("Redis answers", async || command.query_async(&mut self.world.redis.clone()).await.ok()).await
    }

    /// Redis refuses writes while a setting is 1.
    async fn redis_refuses(&self, setting: &str, pause: Duration) {
        for value in ["1", "0"] {
            self.redis::<()>(redis::cmd("CONFIG").arg("SET").arg(setting).arg(value)).await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Redis loses everything, and gets it back from a backup of the moment before.
    async fn redis_is_empty(&self, pause: Duration) {
        let keys: Vec<Vec<u8>> = self.redis(redis::cmd("KEYS").arg("*")).await;
        let mut backup = Vec::new();
        for key in keys {
            let expires: i64 = self.redis(redis::cmd("PTTL").arg(&key)).await;
            let value: Option<Vec<u8>> = self.redis(redis::cmd("DUMP").arg(&key)).await;
            backup.extend(value.map(|value| (key, expires.max(0), value)));
        }
        self.redis::<()>(&redis::cmd("FLUSHALL")).await;
        tokio::time::sleep(pause).await;
        for (key, expires, value) in backup {
            self.redis::<()>(redis::cmd("RESTORE").arg(key).arg(expires).arg(value).arg("REPLACE")).await;
        }
    }

    async fn odd_records(&mut self) {
        let events = self.world.names().events().to_owned();
        for _ in 0..14 {
            let (record, effect) = odd_record(self.odd);
            self.odd += 1;
            self.world.write_to(&events, record).await;
            self.ledger.malformed += usize::from(effect == Effect::DeadLetter);
            let length = self.random.random_range(0..2_000);
            let mut bytes: Vec<u8> = (0..length).map(|_| self.random.random()).collect();
            // None of these is a transition, whatever the bytes are.
            bytes.insert(0, 0xff);
            self.world.write("hostile", Some(&bytes)).await;
            self.ledger.malformed += 1;
        }
    }

    async fn deletion(&mut self, pause: Duration) {
        self.doomed += 1;
        let path = format!("/doomed-{}", self.doomed);
        let webhook = self.webhook(&path);
        self.add(&webhook).await;
        self.world.known().await;
        // Some of these wait for their retry when the webhook is deleted.
        let written = self.load();
        tokio::time::sleep(pause).await;
        let removed = async || self.world.store().remove(webhook.id).await.ok();
        assert!(eventually("the webhook is removed", removed).await);
        self.ledger.deleted(path, DELETION_GRACE);
        for record in written.into_iter().chain(self.load()) {
            record.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
        tokio::time::sleep(DELETION_GRACE).await;
    }

    async fn network(&self, part: Part, toxic: Toxic, pause: Duration) {
        let proxies: Vec<&Proxy> = match part {
            Part::Kafka => self.brokers.proxies.iter().collect(),
            Part::Redis => vec![&self.redis_proxy],
            Part::Endpoints => vec![&self.endpoints_proxy],
        };
        for proxy in &proxies {
            match toxic {
                Toxic::Latency => proxy.delay(Duration::from_millis(100)),
                Toxic::Bandwidth => proxy.throttle(50_000),
                Toxic::Cut => proxy.cut(),
                Toxic::HalfClose => proxy.half_close(),
                Toxic::Freeze => proxy.freeze(),
                Toxic::Reset => proxy.reset(),
            }
        }
        tokio::time::sleep(pause).await;
        for proxy in proxies {
            proxy.delay(Duration::ZERO);
            proxy.throttle(0);
        }
    }

    /// Waits until everything is settled, and compares.
    pub async fn figures(mut self) -> Figures {
        self.settled().await;
        let schedule = Schedule::new(&self.world.config().delivery);
        let dead = self.world.dead_letters();
        for worker in &mut self.workers {
            assert!(!worker.log().contains("panicked"), "{}", worker.log());
        }
        let figures = self.ledger.figures(&dead, &schedule, IN_FLIGHT_MAX);
        if !figures.broken.is_empty() {
            self.explain(&figures.broken);
        }
        figures
    }

    /// Prints what each worker says, and the records of the first lost deliveries.
    fn explain(&self, broken: &[String]) {
        for worker in &self.workers {
            println!("the whole log of a worker:\n{}", worker.log());
        }
        let names = self.world.names();
        let tiers = (1..self.world.config().delivery.attempts_max).map(|tier| names.retry(tier));
        for topic in tiers.chain([names.replays()]) {
            for record in self.world.records(&topic) {
                let of = |name: &str| header(&record, name);
                let lost = format!("lost: {} for {}", of("optio-event-id"), of("optio-webhook-id"));
                if broken.iter().take(EXPLAINED).any(|line| *line == lost) {
                    let (partition, offset) = (record.partition(), record.offset());
                    println!("{lost}: {topic}/{partition}/{offset}, {} attempts made", of("optio-attempts"));
                }
            }
        }
    }

    /// Waits until everything is settled. If that takes too long, it prints what each worker says of itself, and which
    /// records are not committed.
    async fn settled(&self) {
        // The outer limit is the shorter one, so that this prints before the inner one panics.
        if timeout(SETTLED_MAX, self.world.settled_within(SETTLED_MAX * 2)).await.is_ok() {
            return;
        }
        for worker in &self.workers {
            println!("the whole log of a worker:\n{}", worker.log());
            println!("its health: {:?} {:?}", worker.page("/healthz").await, worker.page("/readyz").await);
        }
        panic!("not settled after {SETTLED_MAX:?}: {:#?}", self.world.unsettled());
    }
}

/// `/dead` refuses everything, and `/flaky` and the webhooks that will be deleted refuse each first attempt.
fn answer(world: &World, requests: Requests, outage: Arc<AtomicBool>) {
    world.receiver.answer(move |request| {
        let is_flaky = request.path == "/flaky" || request.path.starts_with("/doomed");
        let fails = outage.load(Ordering::Relaxed) || request.path == "/dead" || (is_flaky && request.attempt() == 1);
        requests.note(request, !fails);
        Reply::status(if fails { 503 } else { 200 }).after(Duration::from_millis(5))
    });
}

/// Answers each connection wrongly, in another way.
async fn hostile(mut stream: TcpStream, _: usize) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let huge = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    if number % 50 == 49 {
        // This one never answers.
        let _ = endpoint::request(&mut stream).await;
        return std::future::pending().await;
    }
    let answer: &[u8] = match number % 9 {
        0 => return,
        1 => return endpoint::reset(stream),
        2 => b"SSH-2.0-OpenSSH_9.2\r\n",
        3 => b"HTTP/1.1 2",
        4 => huge.as_bytes(),
        5 => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort",
        6 => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        7 => b"HTTP/1.1 999 \xff\r\ncontent-length: 0\r\n\r\n",
        _ => b"HTTP/1.1 301 Moved\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n",
    };
    let _ = endpoint::request(&mut stream).await;
    let _ = stream.write_all(answer).await;
}
