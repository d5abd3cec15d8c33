//! The topics, consumer groups and Redis keys of one run. `KAFKA_BROKERS` and `REDIS_URL` name the services.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use optio_webhooks::clock::now_ms;
use optio_webhooks::config::{Config, variable};
use optio_webhooks::event::{EventType, sample};
use optio_webhooks::kafka::{admin, clients};
use optio_webhooks::signature::SigningSecret;
use optio_webhooks::store::webhooks::WebhookStore;
use optio_webhooks::store::{Keys, connection};
use optio_webhooks::topics::Names;
use optio_webhooks::webhook::{Webhook, WebhookId};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use uuid::Uuid;

use super::process::Process;

pub const SECRET: &str = "a secret of the benchmarks";

pub struct World {
    pub config: Arc<Config>,
    environment: Vec<(String, String)>,
}

impl World {
    /// Uses the default settings and `settings`.
    pub async fn new(settings: &[(&str, &str)]) -> Self {
        let required = |name: &str| {
            std::env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set; `make bench` brings up what benchmarks need"))
        };
        let name = Uuid::now_v7().simple().to_string();
        let mut environment = BTreeMap::from([
            ("kafka.brokers", required("KAFKA_BROKERS")),
            ("redis.url", required("REDIS_URL")),
            ("secrets.keys", "bench:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned()),
            ("kafka.topic", format!("bench-{name}")),
            ("kafka.group", format!("bench-{name}")),
            ("redis.prefix", format!("bench-{name}:")),
            ("delivery.allow_http", "true".to_owned()),
            ("delivery.allow_networks", r#"["127.0.0.0/8"]"#.to_owned()),
        ]);
        environment.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let config = Config::with(environment.iter().map(|(key, value)| (*key, value.as_str())))
            .expect("the settings are valid");
        let config = Arc::new(config);
        let environment = environment.into_iter().map(|(key, value)| (variable(key), value)).collect();
        admin::Topics::new(&config).expect("the client can be built").create().await.expect("the topics are created");
        Self { config, environment }
    }

    /// Starts a worker of this build.
    pub fn worker(&self) -> Process {
        self.worker_from(env!("CARGO_BIN_EXE_optio-webhooks"))
    }

    /// Starts a worker of another build, `program`.
    pub fn worker_from(&self, program: impl AsRef<OsStr>) -> Process {
        self.worker_at(program, super::receiver::free_address())
    }

    /// Starts a worker of the build `program`, with its admin server at `admin`.
    pub fn worker_at(&self, program: impl AsRef<OsStr>, admin: SocketAddr) -> Process {
        let mut command = Command::new(program);
        command
            .arg("run")
            .envs(self.environment.iter().cloned())
            .env("OPTIO_WEBHOOKS__ADMIN__LISTEN", admin.to_string());
        Process::start(command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned())))
    }

    /// Starts the program with `arguments`.
    pub fn start(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_optio-webhooks"));
        command.args(arguments).envs(self.environment.iter().cloned()).stdout(std::process::Stdio::null());
        Process::start(&mut command)
    }

    /// Stores a webhook for `events` at each path of the receiver at `at`.
    pub async fn webhooks(&self, at: SocketAddr, paths: &[String], events: &[EventType]) -> Vec<WebhookId> {
        let mut ids = Vec::new();
        let redis = connection::open(&self.config.redis).expect("the URL is valid");
        let store = WebhookStore::open(&self.config, redis).expect("the keys are valid");
        for path in paths {
            let url = format!("http://{at}{path}").parse().expect("the URL is valid");
            let mut webhook = Webhook::new(url, events.to_vec(), now_ms());
            webhook.secret = Some(SigningSecret::stored(SECRET.into()));
            store.put(&webhook).await.expect("Redis answers");
            ids.push(webhook.id);
        }
        ids
    }

    /// Writes `count` transitions that lead to `event`, each of a different task, at an even rate of `per_second`.
    pub async fn emit_evenly(&self, event: EventType, count: usize, per_second: usize) {
        let producer: FutureProducer = clients::producer(&self.config).create().expect("the producer starts");
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut sent = Vec::with_capacity(count);
        let began = std::time::Instant::now();
        while sent.len() < count {
            ticks.tick().await;
            let due = (began.elapsed().as_secs_f64() * per_second as f64) as usize;
            while sent.len() < due.min(count) {
                let (key, value) = transition(event);
                let record = FutureRecord::to(&self.config.kafka.topic).key(&key).payload(&value);
                sent.push(producer.send_result(record).map_err(|(error, _)| error).expect("the queue has room"));
            }
        }
        // The benchmark would wait forever for the delivery of a record that was not written.
        for sent in sent {
            sent.await.expect("the producer lives").map_err(|(error, _)| error).expect("the record is written");
        }
    }

    /// Whether the workers have announced that an endpoint's circuit is open.
    pub async fn has_open_circuit(&self) -> bool {
        let mut redis = connection::open(&self.config.redis).expect("the URL is valid");
        let key = Keys::new(&self.config.redis.prefix).backing_off();
        let count: usize = redis::cmd("ZCARD").arg(key).query_async(&mut redis).await.expect("Redis answers");
        count > 0
    }

    /// The number of records that were written to the retry tiers.
    pub fn waiting(&self) -> i64 {
        let consumer: BaseConsumer = clients::consumer(&self.config, "bench").create().expect("the consumer starts");
        let wait = Duration::from_secs(10);
        let names = Names::new(&self.config);
        let of_topic = |tier: u32| {
            let topic = names.retry(tier);
            let metadata = consumer.fetch_metadata(Some(&topic), wait).expect("the broker answers");
            let partitions = metadata.topics()[0].partitions().iter().map(|partition| partition.id());
            partitions.map(|id| consumer.fetch_watermarks(&topic, id, wait).expect("the broker answers").1).sum::<i64>()
        };
        tokio::task::block_in_place(|| (1..self.config.delivery.attempts_max).map(of_topic).sum())
    }

    /// Waits until the worker has committed every event.
    pub async fn committed(&self, worker: &mut Process) {
        let consumer: BaseConsumer =
            clients::consumer(&self.config, &self.config.kafka.group).create().expect("the consumer starts");
        let wait = Duration::from_secs(10);
        let is_committed = || {
            let metadata = consumer.fetch_metadata(Some(&self.config.kafka.topic), wait).ok()?;
            let mut list = TopicPartitionList::new();
            for partition in metadata.topics()[0].partitions() {
                list.add_partition(&self.config.kafka.topic, partition.id());
            }
            let committed = consumer.committed_offsets(list, wait).ok()?;
            let committed = committed.elements();
            let lag = committed.iter().map(|one| {
                let (_, end) = consumer.fetch_watermarks(one.topic(), one.partition(), wait).ok()?;
                Some(end - one.offset().to_raw().unwrap_or(0).max(0))
            });
            Some(lag.sum::<Option<i64>>()? == 0)
        };
        while tokio::task::block_in_place(is_committed) != Some(true) {
            worker.assert_alive();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Writes `count` transitions that lead to `event`, each of a different task, as fast as possible.
    pub async fn emit(&self, event: EventType, count: usize) {
        let producer: FutureProducer =
            clients::producer(&self.config).set("linger.ms", "20").create().expect("the producer starts");
        let mut left = count;
        while left > 0 {
            let window = left.min(20_000);
            let mut sent = Vec::with_capacity(window);
            for _ in 0..window {
                let (key, value) = transition(event);
                let record = FutureRecord::to(&self.config.kafka.topic).key(&key).payload(&value);
                sent.push(producer.send_result(record).map_err(|(error, _)| error).expect("the queue has room"));
            }
            for sent in sent {
                sent.await.expect("the producer lives").map_err(|(error, _)| error).expect("the record is written");
            }
            left -= window;
        }
    }
}

/// The key and the value of a transition. Its title is the current time, from which the receiver computes the latency.
fn transition(event: EventType) -> (String, String) {
    let task = Uuid::now_v7();
    let title = super::receiver::now_us().to_string();
    (task.to_string(), sample::transition(event, task, &title, now_ms()).to_string())
}
