//! The connections to the admin server: how many there may be, and which one is closed in favour of a new one.
//!
//! Each connection is a file, and deliveries need files too. A connection that keeps the server waiting is closed when
//! its time is over, or earlier if a new connection needs its place.

pub mod watched;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::client::network;
use crate::config;
use crate::metrics::{self, ConnectionClosed};

/// The share of the files that the process may open, as a divisor, that connections to this server may take.
const FILES_DIVISOR: u64 = 4;
/// The fewest connections, however few files there are.
const CONNECTIONS_MIN: usize = 8;
/// The time between two log lines about connections that were closed for others.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// The open connections.
pub struct Connections {
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    places: Arc<Semaphore>,
    limits: Limits,
    told: Mutex<Told>,
}

/// How long a connection may keep the server waiting.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    connections_max: usize,
    header: Duration,
    body: Duration,
    idle: Duration,
}

/// The last log line about connections that were closed for others, and how many there were since.
#[derive(Default)]
struct Told {
    at: Option<Instant>,
    closed: u64,
}

/// An open connection.
pub struct Connection {
    client: IpAddr,
    state: Mutex<State>,
    /// Cancelled when the connection must end at once.
    pub evicted: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
struct State {
    phase: Phase,
    since: Instant,
    /// Since when the client has taken no byte of what is to be sent.
    stalled: Option<Instant>,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No byte of a request has come since the last answer.
    Idle,
    /// The headers of a request are coming.
    Header,
    /// The body of a request is coming.
    Body,
    /// The request is complete, and the answer is being made or sent.
    Answering,
}

/// A place among the connections. It is free again when this is dropped.
pub struct Place {
    connections: Arc<Connections>,
    number: u64,
    /// The connection in this place.
    pub connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Limits {
    /// The limits of `settings` in a process that may open `files_max` files.
    pub fn new(settings: &config::Admin, files_max: u64) -> Self {
        let share = usize::try_from(files_max / FILES_DIVISOR).unwrap_or(usize::MAX);
        Self {
            connections_max: settings.connections_max.min(share).max(CONNECTIONS_MIN),
            header: settings.header_timeout,
            body: settings.body_timeout,
            idle: settings.idle_timeout,
        }
    }
}

impl State {
    /// Since when the client keeps the server waiting; None if it doesn't.
    fn waiting_since(&self) -> Option<Instant> {
        self.stalled.or((self.phase != Phase::Answering).then_some(self.since))
    }

    /// The time at which the connection has kept the server waiting for too long.
    fn ends_at(&self, limits: &Limits) -> Option<Instant> {
        let limit = match (self.stalled, self.phase) {
            (Some(_), _) | (None, Phase::Idle) => limits.idle,
            (None, Phase::Header) => limits.header,
            (None, Phase::Body) => limits.body,
            (None, Phase::Answering) => return None,
        };
        Some(self.waiting_since()? + limit)
    }
}

impl Connection {
    fn new(client: IpAddr) -> Self {
        let state = State { phase: Phase::Idle, since: Instant::now(), stalled: None };
        Self { client, state: Mutex::new(state), evicted: CancellationToken::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the state of a connection")
    }

    /// The connection does something else now.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.state();
        (state.phase, state.since) = (phase, Instant::now());
    }

    /// Bytes came. After an answer they are the beginning of the next request.
    pub fn received(&self) {
        let mut state = self.state();
        if state.phase == Phase::Idle {
            (state.phase, state.since) = (Phase::Header, Instant::now());
        }
    }

    /// The client took bytes (true), or takes none for now (false).
    pub fn sent(&self, took: bool) {
        let mut state = self.state();
        state.stalled = if took { None } else { state.stalled.or_else(|| Some(Instant::now())) };
    }
}

impl Connections {
    /// No connections yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(limits.connections_max));
        Arc::new(Self { open: Mutex::default(), places, limits, told: Mutex::default() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.open.lock().expect("nothing panics while it holds the connections")
    }

    /// A place for a connection from `peer`. If all are taken, a connection that keeps the server waiting is closed for
    /// it. None if there is no such connection: then the new one is closed.
    pub async fn admit(self: &Arc<Self>, peer: IpAddr, number: u64) -> Option<Place> {
        let permit = match self.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let evicted = self.evict();
                self.tell(if evicted { ConnectionClosed::Evicted } else { ConnectionClosed::Refused });
                if !evicted {
                    return None;
                }
                // The evicted connection ends as soon as its task runs, so the number of files stays bounded.
                self.places.clone().acquire_owned().await.ok()?
            }
        };
        let connection = Arc::new(Connection::new(network(peer)));
        self.open().insert(number, connection.clone());
        Some(Place { connections: self.clone(), number, connection, _permit: permit })
    }

    fn evict(&self) -> bool {
        let mut open = self.open();
        let waiting = open
            .iter()
            .filter_map(|(number, connection)| Some((*number, connection.client, connection.state().waiting_since()?)));
        let Some(number) = longest_waiting(&waiting.collect::<Vec<_>>()) else { return false };
        if let Some(connection) = open.remove(&number) {
            connection.evicted.cancel();
        }
        true
    }

    /// Counts a connection that was closed for others, and logs it once a minute at most.
    fn tell(&self, closed: ConnectionClosed) {
        metrics::ADMIN_CONNECTIONS_CLOSED.increment(closed.as_str());
        let mut told = self.told.lock().expect("nothing panics while it holds this");
        told.closed += 1;
        if told.at.is_none_or(|at| at.elapsed() >= REMIND_EVERY) {
            tracing::warn!(
                closed = told.closed,
                connections_max = self.limits.connections_max,
                "connections to the admin server are closed for new ones, those first that send no complete request"
            );
            *told = Told { at: Some(Instant::now()), closed: 0 };
        }
    }
}

/// The connection that has kept the server waiting the longest, among those of the client that has the most such
/// connections. So a client that opens many closes only its own.
fn longest_waiting(waiting: &[(u64, IpAddr, Instant)]) -> Option<u64> {
    let mut by_client: HashMap<IpAddr, (usize, Instant, u64)> = HashMap::new();
    for (number, client, since) in waiting {
        let of_client = by_client.entry(*client).or_insert((0, *since, *number));
        of_client.0 += 1;
        if *since < of_client.1 {
            (of_client.1, of_client.2) = (*since, *number);
        }
    }
    let most = by_client.into_values().max_by_key(|(count, since, _)| (*count, std::cmp::Reverse(*since)));
    most.map(|(_, _, number)| number)
}

impl Place {
    /// Waits until the connection has kept the server waiting for too long, or is evicted. Cancel safe.
    pub async fn ends(&self) {
        /// The longest time until a change of the state is noticed.
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        loop {
            let now = Instant::now();
            let state = *self.connection.state();
            let ends_at = state.ends_at(&self.connections.limits);
            if ends_at.is_some_and(|at| at <= now) {
                // An idle connection whose client has nothing to ask ends as it should.
                if state.phase != Phase::Idle || state.stalled.is_some() {
                    metrics::ADMIN_CONNECTIONS_CLOSED.increment(ConnectionClosed::TooSlow.as_str());
                }
                return;
            }
            let next = ends_at.map_or(now + LOOK_EVERY, |at| at.min(now + LOOK_EVERY));
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                () = self.connection.evicted.cancelled() => return,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn the_client_with_the_most_waiting_connections_loses_its_oldest() {
        let at = |ms| Instant::now() + Duration::from_millis(ms);
        let (one, many) = (address(1), address(2));
        let waiting = [(1, one, at(0)), (2, many, at(20)), (3, many, at(10)), (4, many, at(30))];
        assert_eq!(longest_waiting(&waiting), Some(3), "a person's older connection stays");
        assert_eq!(longest_waiting(&waiting[..2]), Some(1), "the oldest, where none has more");
        assert_eq!(longest_waiting(&[]), None);
    }

    #[test]
    fn most_files_are_left_to_deliveries() {
        let settings = Config::built_in().admin;
        assert_eq!(Limits::new(&settings, u64::MAX).connections_max, settings.connections_max);
        assert_eq!(Limits::new(&settings, 400).connections_max, 100);
        assert_eq!(Limits::new(&settings, 1).connections_max, CONNECTIONS_MIN);
    }

    #[tokio::test]
    async fn a_connection_that_is_being_answered_keeps_its_place() {
        let mut settings = Config::built_in().admin;
        settings.connections_max = 0;
        let connections = Connections::new(Limits::new(&settings, 0));
        let mut places = Vec::new();
        for number in 0..CONNECTIONS_MIN as u64 {
            let place = connections.admit(address(1), number).await.unwrap();
            place.connection.enter(Phase::Answering);
            places.push(place);
        }
        assert!(connections.admit(address(2), 100).await.is_none(), "all are being answered");
        places[3].connection.enter(Phase::Body);
        let evicted = places.remove(3);
        let (new, ()) = tokio::join!(connections.admit(address(2), 101), async move {
            evicted.ends().await;
            drop(evicted);
        });
        assert!(new.is_some());
        // A client that doesn't take its answer keeps the server waiting too.
        places[0].connection.sent(false);
        assert!(places[0].connection.state().waiting_since().is_some());
        places[0].connection.sent(true);
        assert!(places[0].connection.state().waiting_since().is_none());
    }

    #[test]
    fn a_byte_now_and_then_does_not_lengthen_the_time_for_the_headers() {
        let connection = Connection::new(address(1));
        connection.received();
        let began = connection.state().since;
        connection.received();
        let state = *connection.state();
        assert_eq!((state.phase, state.since), (Phase::Header, began));
    }
}
