//! The topics, consumer groups, Redis keys and receiver of one test. No other test uses them.

use std::collections::BTreeMap;
use std::time::Duration;

use optio_webhooks::clock::now_ms;
use optio_webhooks::config::{Config, variable};
use optio_webhooks::event::{EventType, sample};
use optio_webhooks::kafka::{admin, clients, headers};
use optio_webhooks::secret::keyring::Keyring;
use optio_webhooks::signature::SigningSecret;
use optio_webhooks::store::log::packed;
use optio_webhooks::store::success::{self, Counts};
use optio_webhooks::store::webhooks::WebhookStore;
use optio_webhooks::store::{Keys, connection};
use optio_webhooks::topics::Names;
use optio_webhooks::webhook::stored::Sealing;
use optio_webhooks::webhook::{Webhook, WebhookId};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use uuid::Uuid;

use super::receiver::Receiver;
use super::worker::Worker;
use super::{PATIENCE, eventually, eventually_within};

/// How long an event waits until the workers know the webhooks.
const KNOWN_MAX: Duration = Duration::from_secs(3);

/// The key that seals secrets in the tests.
pub const SEALING_KEY: &str = "tests:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Seals secrets as the workers of the tests do.
pub fn sealing() -> Sealing {
    Sealing::new(Keyring::parse(&SEALING_KEY.into()).unwrap(), false)
}

/// The `X-Optio-Signature` that `secret` makes.
pub fn shared_signature(secret: &str, body: &[u8]) -> String {
    SigningSecret::stored(secret.into()).optio(body).expect("it is a shared secret")
}

pub const SECRET: &str = "a long secret of the tests";

/// The admin token of every worker in the tests.
pub const TOKEN: &str = "a token of the tests";

/// The exact bytes of a record to write.
#[derive(Default)]
pub struct Raw<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

pub struct World {
    settings: BTreeMap<String, String>,
    pub receiver: Receiver,
    pub redis: optio_webhooks::store::connection::Connection,
    producer: FutureProducer,
}

fn from_environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; `make test` brings up what tests need"))
}

impl World {
    /// Uses the shared Kafka and Redis, with short delays and three retry tiers.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Like `new`, with additional settings. The value `-` removes a default of the tests.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let name = Uuid::now_v7().simple().to_string();
        let given = |key: &str| settings.iter().find(|(k, _)| *k == key).map(|(_, value)| (*value).to_owned());
        let mut all = BTreeMap::from([
            ("kafka.brokers".to_owned(), given("kafka.brokers").unwrap_or_else(|| from_environment("KAFKA_BROKERS"))),
            ("redis.url".to_owned(), given("redis.url").unwrap_or_else(|| from_environment("REDIS_URL"))),
            ("kafka.topic".to_owned(), format!("task-events-{name}")),
            ("kafka.group".to_owned(), format!("optio-webhooks-{name}")),
            ("redis.prefix".to_owned(), format!("{name}:")),
        ]);
        for (key, value) in [
            ("topics.partitions", "2"),
            ("kafka.properties.session_timeout_ms", "6000"),
            ("kafka.properties.fetch_wait_max_ms", "50"),
            ("admin.token", TOKEN),
            ("secrets.keys", SEALING_KEY),
            // Longer than any timeout that a test sets, because a drain waits for whole attempts.
            ("worker.drain_timeout", "90s"),
            ("delivery.allow_http", "true"),
            ("delivery.allow_networks", r#"["127.0.0.0/8"]"#),
            ("delivery.attempts_max", "4"),
            ("delivery.retry.initial", "200ms"),
            ("delivery.retry.multiplier", "2"),
            // Endpoints fail on purpose. Tests of the circuit breaker set a lower value.
            ("delivery.breaker.attempts_min", "100000"),
        ] {
            all.insert(key.to_owned(), value.to_owned());
        }
        for (key, value) in settings {
            all.insert((*key).to_owned(), (*value).to_owned());
        }
        all.retain(|_, value| value != "-");
        let config = config(&all);
        admin::Topics::new(&config).unwrap().create().await.unwrap();
        let redis = connection::open(&config.redis).unwrap();
        let producer = clients::producer(&config).create().unwrap();
        Self { settings: all, receiver: Receiver::start().await, redis, producer }
    }

    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    pub fn config(&self) -> Config {
        config(&self.settings)
    }

    pub fn names(&self) -> Names {
        Names::new(&self.config())
    }

    pub fn environment(&self) -> Vec<(String, String)> {
        self.settings.iter().map(|(key, value)| (variable(key), value.clone())).collect()
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self) -> Worker {
        let mut worker = Worker::start(&self.environment());
        worker.readiness(true).await;
        worker
    }

    /// Starts an admin server without a worker, and waits until it is ready.
    pub async fn admin(&self) -> Worker {
        let mut admin = Worker::start_with(&["run", "--only", "admin"], &self.environment());
        admin.readiness(true).await;
        admin
    }

    pub fn keys(&self) -> Keys {
        Keys::new(&self.settings["redis.prefix"])
    }

    pub fn store(&self) -> WebhookStore {
        WebhookStore::new(self.redis.clone(), Keys::new(&self.settings["redis.prefix"]), sealing())
    }

    /// Stores a webhook with a secret, at `path` of the receiver, for `events`.
    pub async fn webhook(&self, path: &str, events: &[EventType]) -> WebhookId {
        let webhook = self.unsaved(path, events);
        self.store().put(&webhook).await.unwrap();
        webhook.id
    }

    /// The same webhook as `webhook` makes, but not stored.
    pub fn unsaved(&self, path: &str, events: &[EventType]) -> Webhook {
        let mut webhook = Webhook::new(self.receiver.url(path).parse().unwrap(), events.to_vec(), now_ms());
        webhook.secret = Some(SigningSecret::parse(SECRET.into()).unwrap());
        webhook
    }

    /// Waits until every worker that reports knows the last change of the webhooks: a worker may still use a copy that is
    /// up to `webhooks.staleness_max` old, and an event of that time would miss a new webhook. A worker that can't know
    /// it, because Redis lost something for example, is not waited for.
    pub async fn known(&self) {
        let keys = self.keys();
        let began = std::time::Instant::now();
        while began.elapsed() < KNOWN_MAX {
            let mut redis = self.redis.clone();
            let mut pipe = redis::pipe();
            pipe.get(keys.webhooks_version()).hvals(keys.reports());
            let answer: redis::RedisResult<(Option<u64>, Vec<String>)> = pipe.query_async(&mut redis).await;
            let Ok((version, reports)) = answer else { return };
            let reports = reports.iter().filter_map(|report| serde_json::from_str::<Value>(report).ok());
            let is_alive = |report: &Value| report["atMs"].as_i64().is_some_and(|at| now_ms() - at < 2_500);
            if reports.filter(is_alive).all(|report| report["webhooksVersion"].as_u64() == version) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A transition of a new task that leads to `event`.
    pub fn transition(event: EventType) -> Value {
        sample::transition(event, Uuid::now_v7(), "Fix login redirect after checkout", now_ms())
    }

    /// Writes `count` transitions that lead to `event`, each of a different task.
    pub async fn emit(&self, event: EventType, count: usize) {
        self.known().await;
        let mut sent = Vec::with_capacity(count);
        for _ in 0..count {
            let value = Self::transition(event);
            let key = value["taskId"].as_str().unwrap().to_owned();
            let (topic, value) = (&self.settings["kafka.topic"], value.to_string());
            let record = FutureRecord::to(topic).key(&key).payload(&value);
            sent.push(self.producer.send_result(record).map_err(|(error, _)| error).unwrap());
        }
        for sent in sent {
            sent.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
    }

    /// Writes these bytes to partition 0 of the events topic.
    pub async fn write(&self, key: &str, value: Option<&[u8]>) {
        self.known().await;
        let mut record = FutureRecord::<str, [u8]>::to(&self.settings["kafka.topic"]).key(key).partition(0);
        record.payload = value;
        self.producer.send(record, Duration::from_secs(30)).await.map_err(|(error, _)| error).unwrap();
    }

    /// Writes `record` unchanged to partition 0 of `topic`, and returns its offset.
    pub async fn write_to(&self, topic: &str, record: Raw<'_>) -> i64 {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers::add(&mut headers, key, value.as_deref());
        }
        let mut written = FutureRecord::<[u8], [u8]>::to(topic).partition(0).headers(headers);
        written.key = record.key;
        written.payload = record.value;
        written.timestamp = record.timestamp_ms;
        let sent = self.producer.send(written, Duration::from_secs(30)).await;
        sent.map_err(|(error, _)| error).unwrap().offset
    }

    /// Replaces the configuration of a topic: settings that aren't given go back to their defaults.
    pub async fn alter(&self, topic: &str, settings: &[(&str, &str)]) {
        let admin: AdminClient<_> = clients::producer(&self.config()).create().unwrap();
        let alter = settings
            .iter()
            .fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |alter, (key, value)| alter.set(key, value));
        let altered = admin.alter_configs([&alter], &AdminOptions::new()).await.unwrap();
        altered[0].as_ref().map_err(|(_, code)| code).unwrap();
    }

    /// Deletes a topic.
    pub async fn delete(&self, topic: &str) {
        let admin: AdminClient<_> = clients::producer(&self.config()).create().unwrap();
        admin.delete_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }

    /// Creates deleted topics again, and expects `missing` of them. The broker may refuse this until the deletions end.
    pub async fn recreate_topics(&self, missing: usize) {
        eventually("the deleted topics are created again", async || {
            let created = admin::Topics::new(&self.config()).unwrap().create().await;
            created.is_ok_and(|created| created.len() == missing).then_some(())
        })
        .await;
    }

    /// The headers of a retry record that is due now, after a failed first attempt.
    pub fn retry_headers(webhook: WebhookId, event_id: &str) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let delivery = optio_webhooks::delivery::DeliveryId::of(event_id, webhook);
        let now = now_ms().to_string();
        [
            ("optio-delivery-id", delivery.to_string()),
            ("optio-webhook-id", webhook.to_string()),
            ("optio-event", "task.completed".to_owned()),
            ("optio-event-id", event_id.to_owned()),
            ("optio-task-id", "t".to_owned()),
            ("optio-attempts", "1".to_owned()),
            ("optio-due-at", now.clone()),
            ("optio-first-seen-at", now),
            ("optio-source-topic", "task-events".to_owned()),
            ("optio-source-partition", "0".to_owned()),
            ("optio-source-offset", "0".to_owned()),
        ]
        .map(|(key, value)| (key.as_bytes().to_vec(), Some(value.into_bytes())))
        .to_vec()
    }

    /// Waits until every record is committed: events by the events group, retries and replays by the retry group.
    pub async fn settled(&self) {
        self.settled_within(PATIENCE).await;
    }

    /// Like [`World::settled`], and panics after `patience` for each group.
    pub async fn settled_within(&self, patience: Duration) {
        for (group, topics) in self.consumed() {
            self.committed_within(patience, &group, topics).await;
        }
    }

    /// The consumer groups of workers with the topics that they read.
    fn consumed(&self) -> [(String, Vec<String>); 2] {
        let names = self.names();
        let tiers = (1..self.config().delivery.attempts_max).map(|tier| names.retry(tier));
        let waiting = tiers.chain([names.replays()]).collect();
        [(names.events_group().to_owned(), vec![names.events().to_owned()]), (names.retry_group(), waiting)]
    }

    /// The partitions of events, retries and replays in which records are not committed, with the number of these records.
    pub fn unsettled(&self) -> Vec<(String, i32, i64)> {
        let mut unsettled = Vec::new();
        for (group, topics) in self.consumed() {
            let consumer: BaseConsumer = clients::consumer(&self.config(), &group).create().unwrap();
            for topic in topics {
                let lags = tokio::task::block_in_place(|| lags(&consumer, &topic)).unwrap_or_default();
                let behind = lags.into_iter().filter(|(_, lag)| *lag != 0);
                unsettled.extend(behind.map(|(partition, lag)| (topic.clone(), partition, lag)));
            }
        }
        unsettled
    }

    /// The committed offset of the first partition of events, and its metadata.
    pub fn events_commit(&self) -> Option<(i64, String)> {
        let names = self.names();
        let consumer: BaseConsumer = clients::consumer(&self.config(), names.events_group()).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(names.events(), 0);
        let ask = || consumer.committed_offsets(list, Duration::from_secs(10)).ok();
        let committed = tokio::task::block_in_place(ask)?;
        let element = committed.find_partition(names.events(), 0)?;
        let Offset::Offset(offset) = element.offset() else { return None };
        Some((offset, element.metadata().to_owned()))
    }

    /// Waits until the events group has committed every event.
    pub async fn events_committed(&self) {
        let names = self.names();
        self.committed(names.events_group(), vec![names.events().to_owned()]).await;
    }

    /// Waits until `group` has committed every record of `topics`.
    pub async fn committed(&self, group: &str, topics: Vec<String>) {
        self.committed_within(PATIENCE, group, topics).await;
    }

    async fn committed_within(&self, patience: Duration, group: &str, topics: Vec<String>) {
        let consumer: BaseConsumer = clients::consumer(&self.config(), group).create().unwrap();
        eventually_within(patience, "every record is committed", async || {
            tokio::task::block_in_place(|| topics.iter().all(|topic| lag(&consumer, topic) == Some(0))).then_some(())
        })
        .await;
    }

    pub fn producer(&self) -> &FutureProducer {
        &self.producer
    }

    /// The number of records in `topic`.
    pub fn count(&self, topic: &str) -> i64 {
        tokio::task::block_in_place(|| {
            let consumer: BaseConsumer = clients::consumer(&self.config(), "test-observer").create().unwrap();
            let ends = partitions(&consumer, topic).into_iter().map(|partition| {
                let (low, high) = watermarks(&consumer, topic, partition);
                high - low
            });
            ends.sum()
        })
    }

    /// The attempts of webhooks in the last 24 hours.
    pub async fn of_last_day(&self, webhooks: &[WebhookId]) -> Vec<Counts> {
        let (redis, keys) = (&mut self.redis.clone(), self.keys());
        let hours = success::by_hour(redis, &keys, webhooks, success::DAY, now_ms()).await.unwrap();
        hours.iter().map(|hours| hours.iter().sum()).collect()
    }

    /// The entries of a webhook's delivery log, oldest first.
    pub async fn logged(&self, webhook: WebhookId) -> Vec<Value> {
        self.unpacked_log(webhook).await.iter().map(|(meta, _)| serde_json::from_slice(meta).unwrap()).collect()
    }

    /// The attempts and payloads of the delivery log, as they were before they were packed, oldest first.
    pub async fn unpacked_log(&self, webhook: WebhookId) -> Vec<(Vec<u8>, Vec<u8>)> {
        let key = Keys::new(&self.settings["redis.prefix"]).log(webhook);
        let entries: redis::streams::StreamRangeReply =
            redis::cmd("XRANGE").arg(key).arg("-").arg("+").query_async(&mut self.redis.clone()).await.unwrap();
        let packed = |entry: &redis::streams::StreamId| entry.get::<Vec<u8>>("packed").unwrap();
        entries.ids.iter().map(|entry| packed::unpack(&packed(entry)).expect("the worker packed it")).collect()
    }

    /// Every record of `topic`.
    pub fn records(&self, topic: &str) -> Vec<OwnedMessage> {
        tokio::task::block_in_place(|| {
            let consumer: BaseConsumer = clients::consumer(&self.config(), "test-observer").create().unwrap();
            let mut assignment = TopicPartitionList::new();
            let mut left = 0;
            for partition in partitions(&consumer, topic) {
                let (low, high) = watermarks(&consumer, topic, partition);
                left += high - low;
                assignment.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            }
            consumer.assign(&assignment).unwrap();
            let mut records = Vec::new();
            while left > 0 {
                if let Some(record) = consumer.poll(Duration::from_secs(10)) {
                    records.push(record.unwrap().detach());
                    left -= 1;
                }
            }
            records
        })
    }

    pub fn dead_letters(&self) -> Vec<OwnedMessage> {
        self.records(&self.names().dead_letters())
    }

    /// Waits until there are at least `count` dead letters, and returns all of them.
    pub async fn dead_lettered(&self, count: usize) -> Vec<OwnedMessage> {
        eventually(&format!("{count} dead letters are written"), async || {
            let dead = self.dead_letters();
            (dead.len() >= count).then_some(dead)
        })
        .await
    }
}

fn config(settings: &BTreeMap<String, String>) -> Config {
    Config::with(settings.iter().map(|(key, value)| (key.as_str(), value.as_str()))).unwrap()
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
    metadata.topics()[0].partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()
}

fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    consumer.fetch_watermarks(topic, partition, Duration::from_secs(10)).unwrap()
}

/// The number of records that aren't committed. Returns `None` while a broker doesn't answer, or a leader moves.
fn lag(consumer: &BaseConsumer, topic: &str) -> Option<i64> {
    Some(lags(consumer, topic)?.into_iter().map(|(_, lag)| lag).sum())
}

/// The number of records that are not committed, by partition.
fn lags(consumer: &BaseConsumer, topic: &str) -> Option<Vec<(i32, i64)>> {
    let mut list = TopicPartitionList::new();
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).ok()?;
    for partition in metadata.topics()[0].partitions() {
        list.add_partition(topic, partition.id());
    }
    let committed = consumer.committed_offsets(list, Duration::from_secs(10)).ok()?;
    let elements = committed.elements();
    let lags = elements.iter().map(|element| {
        let (low, high) = consumer.fetch_watermarks(topic, element.partition(), Duration::from_secs(10)).ok()?;
        let committed = if let Offset::Offset(offset) = element.offset() { offset } else { low };
        Some((element.partition(), high - committed))
    });
    lags.collect()
}

/// The text of a header of `record`, or an empty text if the record doesn't have it.
pub fn header(record: &OwnedMessage, name: &str) -> String {
    use rdkafka::Message as _;
    let headers = record.headers().expect("the program writes headers with every record");
    headers::last(Some(headers.as_borrowed()), name).unwrap_or_default().to_owned()
}
