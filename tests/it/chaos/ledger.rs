//! What was written, what receivers saw, and what became a dead letter; and whether that is what was promised.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use optio_webhooks::clock::now_ms;
use optio_webhooks::delivery::DeliveryId;
use optio_webhooks::event::EventType;
use optio_webhooks::schedule::Schedule;
use optio_webhooks::webhook::WebhookId;
use rdkafka::message::OwnedMessage;

use super::fault::Fault;
use crate::harness::receiver::Request;
use crate::harness::world::header;

/// One request that a receiver saw.
struct Seen {
    attempt: u32,
    arrived_at_ms: i64,
    accepted: bool,
}

/// What receivers saw of one delivery.
#[derive(Default)]
struct Delivered {
    path: String,
    requests: Vec<Seen>,
}

/// The requests, written by the receivers while they answer.
#[derive(Clone, Default)]
pub struct Requests(Arc<Mutex<HashMap<String, Delivered>>>);

impl Requests {
    /// Notes a request that a receiver accepted or refused.
    pub fn note(&self, request: &Request, accepted: bool) {
        let mut all = self.0.lock().unwrap();
        let delivered = all.entry(request.delivery()).or_default();
        delivered.path.clone_from(&request.path);
        delivered.requests.push(Seen { attempt: request.attempt(), arrived_at_ms: request.arrived_at_ms, accepted });
    }
}

/// What a run did to the system, beside its faults.
#[derive(Default)]
pub struct Ledger {
    /// The events that were written: their ids and types.
    pub written: Vec<(String, EventType)>,
    /// The webhooks that must get every event of their types.
    pub webhooks: Vec<(WebhookId, Vec<EventType>)>,
    /// The number of records that are no transitions.
    pub malformed: usize,
    /// The number of records that workers read again because offsets were set back or expired.
    pub read_again: usize,
    /// The paths of deleted webhooks, with the time after which nothing may arrive there.
    pub deleted: HashMap<String, i64>,
    /// When the network held requests back on their way to the receivers, in Unix milliseconds. The arrival of such a
    /// request doesn't say when its attempt was made.
    pub held_back: Vec<RangeInclusive<i64>>,
    pub requests: Requests,
    pub faults: HashMap<Fault, usize>,
}

/// What a run found.
#[derive(Default)]
pub struct Figures {
    pub faults: usize,
    pub events: usize,
    pub accepted: usize,
    pub dead: usize,
    /// Deliveries that were accepted again.
    pub repeated: usize,
    /// What was promised and did not happen.
    pub broken: Vec<String>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { faults, events, accepted, dead, repeated, .. } = self;
        write!(f, "{faults} faults, {events} events, {accepted} accepted, {dead} dead letters, {repeated} repeated")
    }
}

impl Ledger {
    /// Nothing may arrive at the path of a webhook that was deleted just now, `grace` from now.
    pub fn deleted(&mut self, path: String, grace: Duration) {
        self.deleted.insert(path, now_ms() + grace.as_millis() as i64);
    }

    /// Compares what was written with what arrived and what was given up.
    pub fn figures(&self, dead: &[OwnedMessage], schedule: &Schedule, in_flight_max: usize) -> Figures {
        let requests = self.requests.0.lock().unwrap();
        // A malformed record is a dead letter without a delivery.
        let letters: HashSet<String> =
            dead.iter().map(|letter| header(letter, "optio-delivery-id")).filter(|id| !id.is_empty()).collect();
        let mut broken = Vec::new();
        let (mut accepted, mut repeated) = (0, 0);
        for (event, kind) in &self.written {
            for (webhook, _) in self.webhooks.iter().filter(|(_, kinds)| kinds.contains(kind)) {
                let id = DeliveryId::of(event, *webhook).to_string();
                let times = requests.get(&id).map_or(0, |delivered| delivered.accepted());
                accepted += times.min(1);
                repeated += times.saturating_sub(1);
                if times == 0 && !letters.contains(&id) {
                    broken.push(format!("lost: {event} for {webhook}"));
                }
            }
        }
        let malformed = dead.iter().filter(|letter| header(letter, "optio-delivery-id").is_empty()).count();
        if malformed < self.malformed {
            broken.push(format!("lost: {malformed} of {} malformed records are dead letters", self.malformed));
        }
        for (id, delivered) in requests.iter() {
            broken.extend(delivered.early(schedule, self).map(|early| format!("early: {early} of {id}")));
            let until = self.deleted.get(&delivered.path);
            let late = until.and_then(|until| delivered.requests.iter().find(|seen| seen.arrived_at_ms > *until));
            broken.extend(late.map(|seen| {
                format!("sent after deletion: {id} to {} by {} ms", delivered.path, seen.arrived_at_ms - until.unwrap())
            }));
        }
        let causes: usize = self.faults.iter().filter(|(fault, _)| fault.may_repeat()).map(|(_, count)| count).sum();
        // A record that is read again is sent again to each of its webhooks, at most once.
        let read_again = self.read_again * self.webhooks.len();
        if repeated > causes * in_flight_max + read_again {
            let why = format!("{causes} faults that may repeat, and {} records that were read again", self.read_again);
            broken.push(format!("{repeated} repeated after {why}"));
        }
        Figures {
            faults: self.faults.values().sum(),
            events: self.written.len(),
            accepted,
            dead: letters.len(),
            repeated,
            broken,
        }
    }
}

impl Delivered {
    fn accepted(&self) -> usize {
        self.requests.iter().filter(|seen| seen.accepted).count()
    }

    /// The attempts that came before the wait after the attempt before them was over.
    fn early<'a>(&'a self, schedule: &'a Schedule, ledger: &'a Ledger) -> impl Iterator<Item = String> + 'a {
        self.requests.iter().filter_map(move |seen| {
            let before = seen.attempt - 1;
            let earliest =
                self.requests.iter().filter(|one| one.attempt == before).map(|one| one.arrived_at_ms).min()?;
            // A record that is read again begins with its first attempt again. That the one before did not arrive at all
            // says nothing about the time between the two.
            let is_of_second_reading = ledger.read_again > 0 && earliest > seen.arrived_at_ms;
            if is_of_second_reading || ledger.held_back.iter().any(|held_back| held_back.contains(&earliest)) {
                return None;
            }
            let wait = schedule.shortest(before)?.as_millis() as i64;
            let waited = seen.arrived_at_ms - earliest;
            (waited < wait).then(|| format!("attempt {} after {waited} instead of {wait} ms", seen.attempt))
        })
    }
}
