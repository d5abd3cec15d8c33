//! The demo of a few deliveries: to an endpoint that works, one that works at the third attempt, and one that never
//! works.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::Method;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::super::api::Server;
use super::super::output::is_closed;
use super::super::run::Signals;
use super::super::{Failure, say};
use super::observation::{Observation, follow};
use crate::admin;
use crate::clock::now_ms;
use crate::config::Config;
use crate::dev::receiver::{Answer, Arrival, Receiver};
use crate::event::{EventType, sample};
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::signature::SigningSecret;
use crate::store::connection;
use crate::store::webhooks::WebhookStore;
use crate::topics::Names;
use crate::webhook::Webhook;
use crate::worker::readiness::Readiness;
use crate::worker::{Prepared, Worker};

/// The time within which every delivery must be done.
const DEMO_MAX: Duration = Duration::from_secs(60);
/// The secret that signs each request.
pub const SECRET: &str = "dev-secret";

/// The paths of the endpoints.
const STEADY: &str = "/steady";
const FLAKY: &str = "/flaky";
const DEAD: &str = "/dead";
/// The number of attempts of each delivery that the flaky endpoint answers with a failure.
const FLAKY_FAILURES: u32 = 2;

/// The running system, and the observations of it.
pub struct Demo {
    config: Arc<Config>,
    worker: Worker,
    /// The receiver of every request.
    pub receiver: Receiver,
    /// The address of the settings page.
    pub page: std::net::SocketAddr,
    observations: tokio::sync::Mutex<mpsc::Receiver<Observation>>,
    producer: FutureProducer<Logging>,
}

impl Demo {
    /// Starts the whole system.
    pub async fn start(config: &Arc<Config>) -> anyhow::Result<Self> {
        let readiness = Arc::new(Readiness::new(true));
        let page = admin::serve(config, readiness.clone(), true).await?.address;
        say(
            "optio-webhooks dev: an in-process broker, a private Redis, the worker and a receiver, all on this machine",
        );
        say("");
        say(&format!("Settings page: http://{page}/  (sign in with the token {:?})", config.admin.token.expose()));
        say("");
        let (sender, observations) = mpsc::channel(1_000);
        let receiver = listen(sender.clone()).await?;
        subscribe_webhooks(config, &receiver).await?;
        let names = Names::new(config);
        follow(config, &names, sender)?;
        let worker = Worker::start(config, Prepared::default(), &readiness.conditions)?;
        readiness.started(worker.snapshots.clone());
        readiness.observes(worker.observed.clone());
        let producer = clients::producer(config).create_with_context(Logging).context("kafka producer")?;
        let observations = tokio::sync::Mutex::new(observations);
        Ok(Self { config: config.clone(), worker, receiver, page, observations, producer })
    }

    /// Writes one transition of each event type, and prints what happens to its deliveries.
    ///
    /// # Errors
    /// The deliveries did not go as expected, or not within [`DEMO_MAX`].
    pub async fn run(&self) -> anyhow::Result<()> {
        say("");
        for event in EventType::TASKS {
            let task = Uuid::now_v7();
            let value = sample::transition(event, task, "Fix login redirect after checkout", now_ms()).to_string();
            let key = task.to_string();
            let record = FutureRecord::to(&self.config.kafka.topic).key(&key).payload(&value);
            self.producer.send(record, DEMO_MAX).await.map_err(|(error, _)| error).context("in-process broker")?;
            say(&format!("  event      {:<20} of task {task} written to {}", event.as_str(), self.config.kafka.topic));
        }
        say("");
        let mut tally = Tally::default();
        let mut observations = self.observations.lock().await;
        let deadline = Instant::now() + DEMO_MAX;
        while !tally.is_complete(&self.config) {
            match tokio::time::timeout_at(deadline, observations.recv()).await {
                Ok(Some(observation)) => {
                    say(&observation.line());
                    tally.add(&observation);
                }
                Ok(None) | Err(_) => break,
            }
        }
        say(&tally.summary());
        if tally.is_as_expected(&self.config) {
            Ok(())
        } else {
            Err(anyhow::anyhow!("the sample deliveries did not go as expected"))
        }
    }

    /// Counts the dead letters, as a person would before a replay, so that every page has something to show. The dead letter
    /// itself is left to the person.
    ///
    /// # Errors
    /// The call of the API failed.
    pub async fn show_more(&self) -> Result<(), Failure> {
        let page = Url::parse(&format!("http://{}/", self.page)).map_err(anyhow::Error::new)?;
        let api = Server::remote(page, Some(self.config.admin.token.clone()))?;
        api.call(Method::POST, "/api/dead-letters/replay", Some(&json!({ "all": true, "dryRun": true }))).await?;
        Ok(())
    }

    /// Prints further observations until a signal.
    pub async fn watch(&self, signals: &mut Signals) {
        let mut observations = self.observations.lock().await;
        loop {
            tokio::select! {
                Some(observation) = observations.recv() => say(&observation.line()),
                () = signals.next() => return,
            }
            if is_closed() {
                return;
            }
        }
    }

    /// Drains the worker.
    pub async fn end(self) {
        drop(self.producer);
        self.worker.drain(&self.config).await;
    }
}

/// The number of observations of each kind.
#[derive(Default)]
struct Tally {
    attempts: u32,
    delivered: HashMap<String, u32>,
    retries: u32,
    dead: u32,
    wrong_signatures: u32,
}

impl Tally {
    fn add(&mut self, observation: &Observation) {
        match observation {
            Observation::Arrived(arrival) => {
                self.attempts += 1;
                self.wrong_signatures += u32::from(arrival.verified != Some(true));
                if arrival.status == 200 {
                    *self.delivered.entry(arrival.path.clone()).or_default() += 1;
                }
            }
            Observation::Retry { .. } => self.retries += 1,
            Observation::Dead { .. } => self.dead += 1,
        }
    }

    /// Whether every event reached the steady and the flaky endpoint, and the delivery to the dead one was
    /// dead-lettered. Only `task.failed` is for the dead endpoint.
    fn is_complete(&self, config: &Config) -> bool {
        let all = EventType::TASKS.len() as u32;
        let delivered = |path| self.delivered.get(path).copied().unwrap_or(0);
        delivered(STEADY) >= all
            && delivered(FLAKY) >= all
            && self.dead >= 1
            && self.retries >= all * FLAKY_FAILURES + config.delivery.attempts_max - 1
    }

    fn is_as_expected(&self, config: &Config) -> bool {
        let all = EventType::TASKS.len() as u32;
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
            EventType::TASKS.len(),
            self.attempts,
            self.retries,
            self.dead
        )
    }
}

async fn listen(observations: mpsc::Sender<Observation>) -> anyhow::Result<Receiver> {
    let answer = |arrival: &Arrival| match arrival.path.as_str() {
        FLAKY if arrival.attempt <= FLAKY_FAILURES => Answer::status(503),
        DEAD => Answer::status(500),
        _ => Answer::status(200),
    };
    let (receiver, mut arrivals) = Receiver::start(([127, 0, 0, 1], 0).into(), Some(SECRET.into()), answer).await?;
    tokio::spawn(async move {
        while let Some(arrival) = arrivals.recv().await {
            let _ = observations.send(Observation::Arrived(arrival)).await;
        }
    });
    Ok(receiver)
}

async fn subscribe_webhooks(config: &Config, receiver: &Receiver) -> anyhow::Result<()> {
    let redis = connection::open(&config.redis)?;
    let store = WebhookStore::open(config, redis)?;
    let all = EventType::TASKS.to_vec();
    let endpoints = [
        (STEADY, all.clone(), "answers 200"),
        (FLAKY, all, "answers 503 twice, then 200"),
        (DEAD, vec![EventType::TaskFailed], "answers 500, always"),
    ];
    for (path, events, description) in endpoints {
        let url = Url::parse(&format!("http://{}{path}", receiver.address))?;
        say(&format!("  webhook    {url}  {description}"));
        let mut webhook = Webhook::new(url, events, now_ms());
        webhook.secret = Some(SigningSecret::stored(SECRET.into()));
        webhook.description = Some(description.to_owned());
        store.put(&webhook).await?;
    }
    Ok(())
}
