//! All that outlives a process: the logs of the topics, the commits, the marks, and what the endpoints saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::message::OwnedHeaders;
use uuid::Uuid;

use crate::clock::now_ms;
use crate::config::Config;
use crate::delivery::DeliveryId;
use crate::event::EventType;
use crate::schedule::Schedule;
use crate::topics::Names;
use crate::webhook::{Webhook, WebhookId};

/// The paths of the endpoints, each with its own faults.
pub const PATHS: [&str; 4] = ["/good", "/flaky", "/slow", "/dead"];
/// The partitions of the topic of events.
pub const PARTITIONS: i32 = 2;

/// A record in a log.
#[derive(Clone)]
pub struct Stored {
    pub value: Vec<u8>,
    pub headers: OwnedHeaders,
    pub timestamp_ms: i64,
    /// The delivery, of a record that is no event.
    pub delivery: Option<String>,
}

/// A request that an endpoint saw.
pub struct Request {
    pub attempt: u32,
    pub at_ms: i64,
    pub accepted: bool,
}

/// All that outlives a process.
pub struct Outside {
    pub config: Arc<Config>,
    pub names: Names,
    pub webhooks: Vec<Webhook>,
    pub random: StdRng,
    pub logs: BTreeMap<(String, i32), Vec<Stored>>,
    pub commits: BTreeMap<(String, i32), (i64, String)>,
    /// The streams of marks.
    pub marks: BTreeMap<Vec<u8>, Vec<(u64, Vec<u8>)>>,
    pub next_mark: u64,
    /// The events that are still to be written, and the ids of those that were.
    pub to_write: usize,
    pub events: Vec<String>,
    pub requests: BTreeMap<String, Vec<Request>>,
    pub in_flight: BTreeMap<String, usize>,
    /// How often each delivery may be repeated, because work in flight was cut off.
    pub may_repeat: BTreeMap<String, usize>,
    /// All that happened outside.
    pub trace: Vec<String>,
    pub broken: Vec<String>,
}

/// Shared access to what is outside.
#[derive(Clone)]
pub struct World(Arc<Mutex<Outside>>);

impl World {
    /// The world that `seed` decides.
    pub fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let in_flight_max = random.random_range(2..40_u32).to_string();
        let of_endpoint = random.random_range(1..8_u32).to_string();
        let window_max = random.random_range(10..=25_u32).to_string();
        let settings = [
            ("kafka.brokers", "simulated:9092"),
            ("redis.url", "redis://simulated/"),
            ("secrets.keys", "simulated:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            ("admin.token", "a token of the simulation"),
            ("kafka.open_offsets_max", "100"),
            ("topics.partitions", "2"),
            ("delivery.allow_http", "true"),
            ("delivery.allow_networks", r#"["127.0.0.0/8"]"#),
            ("delivery.timeout", "2s"),
            ("delivery.attempts_max", "4"),
            ("delivery.retry.initial", "500ms"),
            ("delivery.retry.multiplier", "2"),
            ("delivery.retry.max", "2s"),
            ("delivery.retry.window_max", window_max.as_str()),
            ("delivery.age_max", "15s"),
            ("delivery.breaker.attempts_min", "5"),
            ("delivery.breaker.window", "5s"),
            ("delivery.breaker.open_initial", "1s"),
            ("delivery.breaker.open_max", "2s"),
            ("worker.in_flight_max", in_flight_max.as_str()),
            ("delivery.endpoint_in_flight_max", of_endpoint.as_str()),
        ];
        let config = Arc::new(Config::with(settings).expect("the settings are valid"));
        let webhook = |(number, path): (usize, &&str)| {
            let url = format!("http://127.0.0.1{path}").parse().expect("it is a URL");
            let mut webhook = Webhook::new(url, EventType::TASKS.to_vec(), 0);
            webhook.id = WebhookId(Uuid::from_u128(number as u128 + 1));
            webhook
        };
        let webhooks = PATHS.iter().enumerate().map(webhook).collect();
        let to_write = random.random_range(2..14);
        Self(Arc::new(Mutex::new(Outside {
            names: Names::new(&config),
            config,
            webhooks,
            random,
            logs: BTreeMap::new(),
            commits: BTreeMap::new(),
            marks: BTreeMap::new(),
            next_mark: 0,
            to_write,
            events: Vec::new(),
            requests: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            may_repeat: BTreeMap::new(),
            trace: Vec::new(),
            broken: Vec::new(),
        })))
    }

    /// Looks at the outside, or changes it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Outside) -> T) -> T {
        act(&mut self.0.lock().expect("nothing panics while it holds this lock"))
    }

    /// Whether something happens, with a probability in percent.
    pub fn happens(&self, percent: u32) -> bool {
        self.with(|outside| outside.random.random_range(0..100) < percent)
    }

    /// Waits for a time between 0 and `longest`.
    pub async fn pause(&self, longest: Duration) {
        let millis = self.with(|outside| outside.random.random_range(0..=longest.as_millis() as u64));
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Waits until every record of every topic that is read is committed.
    pub async fn settled(&self) {
        while !self.with(|outside| outside.is_settled()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Outside {
    /// The partitions that the group of the events or of the retries reads.
    pub fn partitions(&self, is_of_events: bool) -> Vec<(String, i32)> {
        let topics = match is_of_events {
            true => vec![self.names.events().to_owned()],
            false => (1..=Schedule::new(&self.config.delivery).tiers()).map(|tier| self.names.retry(tier)).collect(),
        };
        topics.into_iter().flat_map(|topic| (0..PARTITIONS).map(move |number| (topic.clone(), number))).collect()
    }

    /// Appends a record.
    pub fn append(&mut self, topic: &str, number: i32, record: Stored) {
        let log = self.logs.entry((topic.to_owned(), number)).or_default();
        self.trace.push(format!("{} {topic}/{number}/{} {:?}", record.timestamp_ms, log.len(), record.delivery));
        log.push(record);
    }

    fn is_settled(&self) -> bool {
        let read = [true, false].into_iter().flat_map(|is_of_events| self.partitions(is_of_events));
        let committed = |partition: &(String, i32)| self.commits.get(partition).map_or(0, |(offset, _)| *offset);
        self.to_write == 0
            && read
                .into_iter()
                .all(|partition| self.logs.get(&partition).map_or(0, Vec::len) as i64 == committed(&partition))
    }

    /// When the process dies, for each of its lives but the last.
    pub fn deaths(&mut self) -> Vec<Duration> {
        let deaths = self.random.random_range(0..4);
        (0..deaths).map(|_| Duration::from_millis(self.random.random_range(10..6_000))).collect()
    }

    /// The process has died.
    pub fn died(&mut self) {
        self.interrupted(None);
        self.in_flight.clear();
        self.trace.push("died".to_owned());
    }

    /// Takes a commit, and checks that it passes no record whose deliveries aren't durable elsewhere.
    pub fn commit(&mut self, partition: &(String, i32), offset: i64, note: String) {
        self.trace.push(format!("commit {}/{} {offset}", partition.0, partition.1));
        let before = self.commits.insert(partition.clone(), (offset, note)).map_or(0, |(offset, _)| offset);
        let log = self.logs.get(partition).map_or(&[][..], Vec::as_slice);
        let passed = &log[before.min(offset) as usize..offset as usize];
        let mut lost = BTreeSet::new();
        for record in passed {
            match &record.delivery {
                Some(delivery) => lost.extend((!self.is_durable(delivery, Some(partition))).then(|| delivery.clone())),
                None => {
                    let event = event_id(record);
                    let deliveries = self.webhooks.iter().map(|webhook| DeliveryId::of(&event, webhook.id).to_string());
                    lost.extend(deliveries.filter(|delivery| !self.is_durable(delivery, None)));
                }
            }
        }
        self.broken.extend(lost.into_iter().map(|delivery| format!("{delivery} was passed by a commit")));
    }

    /// Whether a delivery was accepted, or waits or ended in a topic other than `except`.
    fn is_durable(&self, delivery: &str, except: Option<&(String, i32)>) -> bool {
        let accepted = |requests: &Vec<Request>| requests.iter().any(|request| request.accepted);
        // A delivery that is deferred may be written to the same partition again, where it then stands twice.
        let times = |log: &Vec<Stored>| log.iter().filter(|one| one.delivery.as_deref() == Some(delivery)).count();
        self.requests.get(delivery).is_some_and(accepted)
            || self.logs.iter().any(|(partition, log)| times(log) > usize::from(Some(partition) == except))
    }

    /// What went wrong.
    pub fn verdict(&mut self) -> Vec<String> {
        let mut broken = std::mem::take(&mut self.broken);
        if !self.is_settled() {
            broken.push(format!("not settled by {}", now_ms()));
        }
        let schedule = Schedule::new(&self.config.delivery);
        let dead = self.names.dead_letters();
        let letters = self.logs.iter().filter(|((topic, _), _)| *topic == dead).flat_map(|(_, log)| log);
        let letters: BTreeSet<&str> = letters.filter_map(|letter| letter.delivery.as_deref()).collect();
        for event in &self.events {
            for webhook in &self.webhooks {
                let id = DeliveryId::of(event, webhook.id).to_string();
                let none = Vec::new();
                let requests = self.requests.get(&id).unwrap_or(&none);
                let accepted = requests.iter().filter(|request| request.accepted).count();
                if accepted == 0 && !letters.contains(id.as_str()) {
                    broken.push(format!("{id} is lost"));
                }
                let may_repeat = self.may_repeat.get(&id).copied().unwrap_or(0);
                if accepted > 1 + may_repeat {
                    broken.push(format!("{id} was accepted {accepted} times, and may be repeated {may_repeat} times"));
                }
                for request in requests.iter().filter(|request| request.attempt > 1) {
                    let before = requests.iter().filter(|one| one.attempt + 1 == request.attempt);
                    let waited = before.map(|one| request.at_ms - one.at_ms).max().unwrap_or(0);
                    let shortest = schedule.shortest(request.attempt - 1).map_or(0, |wait| wait.as_millis() as i64);
                    if waited < shortest {
                        broken.push(format!("{id} came {} ms too early", shortest - waited));
                    }
                }
            }
        }
        broken
    }
}

/// The id of an event's record.
pub fn event_id(record: &Stored) -> String {
    let value: serde_json::Value = serde_json::from_slice(&record.value).expect("it was written as JSON");
    value["id"].as_str().expect("it has an id").to_owned()
}
