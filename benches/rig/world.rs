//! Topics, groups and keys of one run, on the Kafka and Redis of `KAFKA_BROKERS` and `REDIS_URL`.

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
use optio_webhooks::store::webhooks::WebhookStore;
use optio_webhooks::store::{Keys, connection};
use optio_webhooks::webhook::{Webhook, WebhookId};
use rdkafka::producer::{FutureProducer, FutureRecord};
use uuid::Uuid;

use super::process::Process;

pub const SECRET: &str = "a secret of the benchmark's own";

pub struct World {
    pub config: Arc<Config>,
    environment: Vec<(String, String)>,
}

impl World {
    /// With `settings` beside the defaults.
    pub async fn new(settings: &[(&str, &str)]) -> Self {
        let own = |name: &str| {
            std::env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set; `make bench` brings up what benchmarks need"))
        };
        let name = Uuid::now_v7().simple().to_string();
        let mut environment = BTreeMap::from([
            ("kafka.brokers", own("KAFKA_BROKERS")),
            ("redis.url", own("REDIS_URL")),
            ("kafka.topic", format!("bench-{name}")),
            ("kafka.group", format!("bench-{name}")),
            ("redis.prefix", format!("bench-{name}:")),
            ("delivery.allow_http", "true".to_owned()),
            ("delivery.allow_networks", r#"["127.0.0.0/8"]"#.to_owned()),
        ]);
        environment.extend(settings.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let config =
            Config::with(environment.iter().map(|(key, value)| (*key, value.as_str()))).expect("good settings");
        let config = Arc::new(config);
        let environment = environment.into_iter().map(|(key, value)| (variable(key), value)).collect();
        admin::Topics::new(&config).expect("a client").create().await.expect("topics");
        Self { config, environment }
    }

    /// The worker, at work from now on.
    pub fn worker(&self) -> Process {
        self.worker_of(env!("CARGO_BIN_EXE_optio-webhooks"))
    }

    /// Another build of the worker.
    pub fn worker_of(&self, program: impl AsRef<OsStr>) -> Process {
        let mut command = Command::new(program);
        let admin = super::receiver::free_address();
        command
            .arg("run")
            .envs(self.environment.iter().cloned())
            .env("OPTIO_WEBHOOKS__ADMIN__LISTEN", admin.to_string());
        Process::start(command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned())))
    }

    /// The program with other arguments.
    pub fn call(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_optio-webhooks"));
        command.args(arguments).envs(self.environment.iter().cloned()).stdout(std::process::Stdio::null());
        Process::start(&mut command)
    }

    /// A webhook for each path, for `events`.
    pub async fn webhooks(&self, at: SocketAddr, paths: &[String], events: &[EventType]) -> Vec<WebhookId> {
        let mut ids = Vec::new();
        let store = WebhookStore::new(
            connection::open(&self.config.redis).expect("a URL").1,
            Keys::new(&self.config.redis.prefix),
        );
        for path in paths {
            let url = format!("http://{at}{path}").parse().expect("a URL");
            let mut webhook = Webhook::new(url, events.to_vec(), now_ms());
            webhook.secret = Some(SECRET.to_owned());
            store.put(&webhook).await.expect("redis");
            ids.push(webhook.id);
        }
        ids
    }

    /// Writes `count` transitions that lead to `event`, each of another task, `per_second` of them at an even pace.
    pub async fn emit_evenly(&self, event: EventType, count: usize, per_second: usize) {
        let producer: FutureProducer = clients::producer(&self.config).create().expect("a producer");
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut sent = Vec::with_capacity(count);
        let began = std::time::Instant::now();
        while sent.len() < count {
            ticks.tick().await;
            let due = (began.elapsed().as_secs_f64() * per_second as f64) as usize;
            while sent.len() < due.min(count) {
                let (key, value) = transition(event);
                let record = FutureRecord::to(&self.config.kafka.topic).key(&key).payload(&value);
                sent.push(producer.send_result(record).map_err(|(error, _)| error).expect("room in the queue"));
            }
        }
        // A record that was not written would leave the measurement waiting for it.
        for sent in sent {
            sent.await.expect("the producer lives").map_err(|(error, _)| error).expect("written");
        }
    }

    /// Writes `count` transitions that lead to `event`, each of another task.
    pub async fn emit(&self, event: EventType, count: usize) {
        let producer: FutureProducer =
            clients::producer(&self.config).set("linger.ms", "20").create().expect("a producer");
        let mut left = count;
        while left > 0 {
            let window = left.min(20_000);
            let mut sent = Vec::with_capacity(window);
            for _ in 0..window {
                let (key, value) = transition(event);
                let record = FutureRecord::to(&self.config.kafka.topic).key(&key).payload(&value);
                sent.push(producer.send_result(record).map_err(|(error, _)| error).expect("room in the queue"));
            }
            for sent in sent {
                sent.await.expect("the producer lives").map_err(|(error, _)| error).expect("written");
            }
            left -= window;
        }
    }
}

/// Its title says when it was written, so that the receiver can tell how long it took.
fn transition(event: EventType) -> (String, String) {
    let (task, now) = (Uuid::now_v7(), now_ms());
    (task.to_string(), sample::transition(event, task, &now.to_string(), now).to_string())
}
