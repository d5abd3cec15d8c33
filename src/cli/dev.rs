//! `dev`: the whole system on embedded defaults, and the story of a few deliveries.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::Message as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::Headers as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::run::Signals;
use super::{Failure, say};
use crate::admin;
use crate::config::Config;
use crate::delivery::now_ms;
use crate::dev::receiver::{Answer, Arrival, Receiver};
use crate::dev::redis_server::RedisServer;
use crate::event::{EventType, sample};
use crate::kafka::clients;
use crate::kafka::words::Words;
use crate::store::webhooks::WebhookStore;
use crate::store::{Keys, connection};
use crate::topics::{Names, needed};
use crate::webhook::Webhook;
use crate::worker::Worker;
use crate::worker::health::Readiness;

/// `optio-webhooks dev`
#[derive(clap::Args)]
pub struct Dev {
    /// Exit after the story: with 0 if all came out as it should, else with 1.
    #[arg(long)]
    once: bool,
}

/// Longest that the story may take.
const STORY_MAX: Duration = Duration::from_secs(60);
const SECRET: &str = "dev-secret";
/// Signs in to the page; this system is gone when it ends.
const TOKEN: &str = "dev";
const BROKERS: i32 = 1;
const PARTITIONS: i32 = 4;

/// The endpoints of the story, by path.
const STEADY: &str = "/steady";
const FLAKY: &str = "/flaky";
const DEAD: &str = "/dead";
/// Attempts that the flaky endpoint fails before it succeeds.
const FLAKY_FAILURES: u32 = 2;

/// Short waits, so that the story takes seconds.
fn settings(brokers: String, redis_url: String) -> anyhow::Result<Config> {
    let mut config = Config::built_in();
    config.kafka.brokers = brokers;
    config.redis.url = redis_url;
    config.admin.listen = ([127, 0, 0, 1], 0).into();
    TOKEN.clone_into(&mut config.admin.token);
    config.delivery.allow_http = true;
    config.delivery.allow_networks = vec!["127.0.0.0/8".parse()?];
    config.delivery.attempts_max = 4;
    config.delivery.retry.initial = Duration::from_millis(500);
    config.delivery.retry.multiplier = 2.0;
    config.delivery.retry.max = Duration::from_secs(2);
    config.worker.drain_timeout = Duration::from_secs(5);
    Ok(config)
}

impl Dev {
    /// Until Ctrl-C, or the story's end with `--once`.
    pub async fn run(self) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let redis_server = tokio::task::spawn_blocking(RedisServer::start).await.context("redis-server")??;
        let broker = MockCluster::new(BROKERS).context("in-process broker")?;
        let config = Arc::new(settings(broker.bootstrap_servers(), redis_server.url.clone())?);
        create_topics(&broker, &config)?;
        let story = tokio::select! {
            story = Story::begin(&config) => story?,
            () = signals.next() => return Ok(()),
        };
        let done = tokio::select! {
            done = story.tell() => done,
            () = signals.next() => { story.end().await; return Ok(()) }
        };
        if !self.once && done.is_ok() {
            say(&invitation(&config, &story.receiver, story.page));
            story.watch(&mut signals).await;
        }
        story.end().await;
        drop(redis_server);
        done.map_err(Failure::Run)
    }
}

fn create_topics(broker: &MockCluster<'_, DefaultProducerContext>, config: &Config) -> anyhow::Result<()> {
    for topic in needed(config) {
        broker.create_topic(&topic.name, PARTITIONS, 1).with_context(|| format!("topic {}", topic.name))?;
    }
    Ok(())
}

struct Story {
    config: Arc<Config>,
    worker: Worker,
    receiver: Receiver,
    page: std::net::SocketAddr,
    happenings: tokio::sync::Mutex<mpsc::Receiver<Happening>>,
    producer: FutureProducer<Words>,
}

/// What the story is made of.
enum Happening {
    Arrived(Arrival),
    Waits { tier: u32, delivery: String, wait_ms: i64, error: String },
    Dead { delivery: String, reason: String, detail: String },
}

/// What was seen of each kind.
#[derive(Default)]
struct Seen {
    attempts: u32,
    delivered: HashMap<String, u32>,
    retries: u32,
    dead: u32,
    wrong_signatures: u32,
}

impl Story {
    async fn begin(config: &Arc<Config>) -> anyhow::Result<Self> {
        let readiness = Arc::new(Readiness::new(true));
        let page = admin::serve(config, readiness.clone(), true).await?.address;
        say(&format!("Settings page: http://{page}/  (sign in with the token {TOKEN:?})\n"));
        say(
            "optio-webhooks dev: an in-process broker, a private Redis, the worker and a receiver, all on this machine\n",
        );
        let (sender, happenings) = mpsc::channel(1_000);
        let receiver = listen(sender.clone()).await?;
        subscribe_webhooks(config, &receiver).await?;
        let names = Names::new(config);
        let tiers: Vec<String> = (1..config.delivery.attempts_max).map(|tier| names.retry(tier)).collect();
        follow(config, &names, sender)?;
        let worker = Worker::start(config, tiers)?;
        readiness.started(worker.snapshots.clone());
        let producer = clients::producer(config).create_with_context(Words).context("kafka producer")?;
        let happenings = tokio::sync::Mutex::new(happenings);
        Ok(Self { config: config.clone(), worker, receiver, page, happenings, producer })
    }

    /// Writes one transition of each type and follows what becomes of them.
    async fn tell(&self) -> anyhow::Result<()> {
        say("");
        for event in EventType::ALL {
            let task = Uuid::now_v7();
            let value = sample::transition(event, task, "Fix login redirect after checkout", now_ms()).to_string();
            let key = task.to_string();
            let record = FutureRecord::to(&self.config.kafka.topic).key(&key).payload(&value);
            self.producer.send(record, STORY_MAX).await.map_err(|(error, _)| error).context("in-process broker")?;
            say(&format!("  event      {:<20} of task {task} written to {}", event.as_str(), self.config.kafka.topic));
        }
        say("");
        let mut seen = Seen::default();
        let mut happenings = self.happenings.lock().await;
        let deadline = Instant::now() + STORY_MAX;
        while !seen.is_complete(&self.config) {
            match tokio::time::timeout_at(deadline, happenings.recv()).await {
                Ok(Some(happening)) => {
                    say(&happening.line());
                    seen.add(&happening);
                }
                Ok(None) | Err(_) => break,
            }
        }
        say(&seen.summary());
        if seen.is_as_it_should_be(&self.config) {
            Ok(())
        } else {
            Err(anyhow::anyhow!("the story didn't come out as it should"))
        }
    }

    /// Goes on showing what happens.
    async fn watch(&self, signals: &mut Signals) {
        let mut happenings = self.happenings.lock().await;
        loop {
            tokio::select! {
                Some(happening) = happenings.recv() => say(&happening.line()),
                () = signals.next() => return,
            }
        }
    }

    async fn end(self) {
        drop(self.producer);
        self.worker.drain(&self.config).await;
    }
}

impl Seen {
    fn add(&mut self, happening: &Happening) {
        match happening {
            Happening::Arrived(arrival) => {
                self.attempts += 1;
                self.wrong_signatures += u32::from(arrival.verified != Some(true));
                if arrival.status == 200 {
                    *self.delivered.entry(arrival.path.clone()).or_default() += 1;
                }
            }
            Happening::Waits { .. } => self.retries += 1,
            Happening::Dead { .. } => self.dead += 1,
        }
    }

    /// Every event reaches the steady and the flaky endpoint; only `task.failed` is for the dead one.
    fn is_complete(&self, config: &Config) -> bool {
        let all = EventType::ALL.len() as u32;
        let delivered = |path| self.delivered.get(path).copied().unwrap_or(0);
        delivered(STEADY) >= all
            && delivered(FLAKY) >= all
            && self.dead >= 1
            && self.retries >= all * FLAKY_FAILURES + config.delivery.attempts_max - 1
    }

    fn is_as_it_should_be(&self, config: &Config) -> bool {
        let all = EventType::ALL.len() as u32;
        self.is_complete(config)
            && self.wrong_signatures == 0
            && self.dead == 1
            && self.delivered.values().sum::<u32>() == 2 * all
            && self.attempts == all + all * (FLAKY_FAILURES + 1) + config.delivery.attempts_max
    }

    fn summary(&self) -> String {
        let signatures = if self.wrong_signatures == 0 {
            "all verified".to_owned()
        } else {
            format!("{} WRONG", self.wrong_signatures)
        };
        let delivered: u32 = self.delivered.values().sum();
        format!(
            "\n  {} events, {} attempts (signatures: {signatures}), {delivered} delivered, retries: {}, dead letters: {}",
            EventType::ALL.len(),
            self.attempts,
            self.retries,
            self.dead
        )
    }
}

impl Happening {
    fn line(&self) -> String {
        match self {
            Self::Arrived(arrival) => format!("  attempt    {}", arrival.line()),
            Self::Waits { tier, delivery, wait_ms, error } => {
                format!("  retry      after attempt {tier}: delivery {delivery} ({error}) waits {wait_ms} ms")
            }
            Self::Dead { delivery, reason, detail } => format!("  dead       delivery {delivery}: {reason}, {detail}"),
        }
    }
}

async fn listen(happenings: mpsc::Sender<Happening>) -> anyhow::Result<Receiver> {
    let answer = |arrival: &Arrival| match arrival.path.as_str() {
        FLAKY if arrival.attempt <= FLAKY_FAILURES => Answer::status(503),
        DEAD => Answer::status(500),
        _ => Answer::status(200),
    };
    let (receiver, mut arrivals) = Receiver::start(([127, 0, 0, 1], 0).into(), Some(SECRET.to_owned()), answer).await?;
    tokio::spawn(async move {
        while let Some(arrival) = arrivals.recv().await {
            let _ = happenings.send(Happening::Arrived(arrival)).await;
        }
    });
    Ok(receiver)
}

async fn subscribe_webhooks(config: &Config, receiver: &Receiver) -> anyhow::Result<()> {
    let (_, redis) = connection::open(&config.redis)?;
    let store = WebhookStore::new(redis, Keys::new(&config.redis.prefix));
    let all = EventType::ALL.to_vec();
    let stories = [
        (STEADY, all.clone(), "answers 200"),
        (FLAKY, all, "answers 503 twice, then 200"),
        (DEAD, vec![EventType::TaskFailed], "answers 500, always"),
    ];
    for (path, events, description) in stories {
        let url = Url::parse(&format!("http://{}{path}", receiver.address))?;
        say(&format!("  webhook    {url}  {description}"));
        let mut webhook = Webhook::new(url, events, now_ms());
        webhook.secret = Some(SECRET.to_owned());
        webhook.description = Some(description.to_owned());
        store.put(&webhook).await?;
    }
    Ok(())
}

/// Reads the retry tiers and the dead letters beside the worker, as anyone with a Kafka tool could.
fn follow(config: &Config, names: &Names, happenings: mpsc::Sender<Happening>) -> anyhow::Result<()> {
    let consumer: StreamConsumer<Words> =
        clients::consumer(config, "dev-observer").create_with_context(Words).context("kafka consumer")?;
    let mut topics: Vec<String> = (1..config.delivery.attempts_max).map(|tier| names.retry(tier)).collect();
    topics.push(names.dead_letters());
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    let names = names.clone();
    tokio::spawn(async move {
        loop {
            let Ok(record) = consumer.recv().await else { continue };
            let header = |name: &str| {
                let found = record.headers().and_then(|headers| headers.iter().find(|header| header.key == name));
                found
                    .and_then(|header| header.value)
                    .map_or(String::new(), |value| String::from_utf8_lossy(value).into_owned())
            };
            let delivery = header("optio-delivery-id");
            let happening = match names.tier_of(record.topic()) {
                Some(tier) => Happening::Waits {
                    tier,
                    delivery,
                    wait_ms: header("optio-due-at").parse::<i64>().unwrap_or(0)
                        - record.timestamp().to_millis().unwrap_or(0),
                    error: format!("{} {}", header("optio-last-error"), header("optio-last-status")).trim().to_owned(),
                },
                None => Happening::Dead {
                    delivery,
                    reason: header("optio-dead-reason"),
                    detail: header("optio-dead-detail"),
                },
            };
            if happenings.send(happening).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn invitation(config: &Config, receiver: &Receiver, page: std::net::SocketAddr) -> String {
    format!(
        "
It stays up until Ctrl-C. In another terminal:

  export OPTIO_WEBHOOKS__KAFKA__BROKERS={} OPTIO_WEBHOOKS__REDIS__URL={}
  export OPTIO_WEBHOOKS__DELIVERY__ALLOW_HTTP=true OPTIO_WEBHOOKS__DELIVERY__ALLOW_NETWORKS='[\"127.0.0.0/8\"]'
  optio-webhooks webhooks list
  optio-webhooks emit --event task.completed
  optio-webhooks listen --secret s3cret

The receiver is http://{}/, its secret {SECRET}. The settings page is http://{page}/, its token {TOKEN}.
",
        config.kafka.brokers, config.redis.url, receiver.address
    )
}
