//! How often somebody may try a token: by client, and as a whole.
//!
//! Only failures count. A client below its own limit is always checked, so that nobody is locked out by the failures of
//! others: the limit of the whole only slows clients that have failed lately.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::client::Client;

/// The failures that one client may make at once, and the time after which it may make another.
const BY_CLIENT: Rate = Rate { burst: 10, every: Duration::from_secs(6) };
/// The same for all clients together.
const OF_ALL: Rate = Rate { burst: 100, every: Duration::from_millis(600) };
/// How many failures of all clients together go into the audit log.
const AUDITED: Rate = Rate { burst: 10, every: Duration::from_secs(6) };
/// The time between two entries in the audit log about failures of one client.
const AUDITED_EVERY: Duration = Duration::from_secs(60);
/// How long a client that failed is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// The number of clients that are remembered. Beyond it, the one that failed the longest ago is forgotten.
const CLIENTS_MAX: usize = 10_000;

/// The outcome of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried<T> {
    /// The token is right.
    Right(T),
    /// The token is wrong. `audit` says whether this failure goes into the audit log.
    Wrong { audit: bool },
    /// The token was not looked at. The client may try again after this time.
    Wait(Duration),
}

/// Counts failures.
#[derive(Debug)]
pub struct Throttle(Mutex<Failures>);

#[derive(Debug)]
struct Failures {
    clients: HashMap<IpAddr, Failing>,
    all: Debt,
    audited: Debt,
}

/// A client that failed.
#[derive(Debug)]
struct Failing {
    debt: Debt,
    last: Instant,
    audited: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// The time at which all failures so far are made up for.
#[derive(Debug, Clone, Copy)]
struct Debt(Instant);

impl Debt {
    /// The time until another failure is allowed.
    fn wait(self, rate: Rate, now: Instant) -> Duration {
        let room = rate.every * (rate.burst - 1);
        self.0.saturating_duration_since(now).saturating_sub(room)
    }

    fn add(&mut self, rate: Rate, now: Instant) {
        self.0 = self.0.max(now) + rate.every;
    }
}

impl Throttle {
    /// Nobody has failed yet.
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Failures { clients: HashMap::new(), all: Debt(now), audited: Debt(now) }))
    }

    fn lock(&self) -> MutexGuard<'_, Failures> {
        self.0.lock().expect("nothing panics while it holds the failures")
    }

    /// Checks a token, unless the client must wait. Tries that are made at the same time are checked one by one, so
    /// that they can't pass the limit together.
    pub fn attempt<T>(&self, client: Client, now: Instant, check: impl FnOnce() -> Option<T>) -> Tried<T> {
        let mut failures = self.lock();
        let client = client.network();
        let known = failures.clients.get(&client).filter(|known| now.duration_since(known.last) < REMEMBERED_FOR);
        if let Some(known) = known {
            let wait = known.debt.wait(BY_CLIENT, now).max(failures.all.wait(OF_ALL, now));
            if !wait.is_zero() {
                return Tried::Wait(wait);
            }
        }
        match check() {
            Some(right) => Tried::Right(right),
            None => Tried::Wrong { audit: failures.add(client, now) },
        }
    }
}

impl Failures {
    /// Counts a failure. Returns whether it goes into the audit log.
    fn add(&mut self, client: IpAddr, now: Instant) -> bool {
        if !self.clients.contains_key(&client) && self.clients.len() >= CLIENTS_MAX {
            self.clients.retain(|_, failing| now.duration_since(failing.last) < REMEMBERED_FOR);
            if self.clients.len() >= CLIENTS_MAX
                && let Some(oldest) = self.clients.iter().min_by_key(|(_, failing)| failing.last).map(|(at, _)| *at)
            {
                self.clients.remove(&oldest);
            }
        }
        self.all.add(OF_ALL, now);
        let may_audit = self.audited.wait(AUDITED, now).is_zero();
        let failing = self.clients.entry(client).or_insert(Failing { debt: Debt(now), last: now, audited: None });
        failing.debt.add(BY_CLIENT, now);
        failing.last = now;
        let is_due = failing.audited.is_none_or(|at| now.duration_since(at) >= AUDITED_EVERY);
        if is_due && may_audit {
            failing.audited = Some(now);
            self.audited.add(AUDITED, now);
        }
        is_due && may_audit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> Client {
        Client { address: std::net::Ipv4Addr::from_bits(number).into() }
    }

    fn fail(throttle: &Throttle, number: u32, now: Instant) -> Tried<()> {
        throttle.attempt(client(number), now, || None)
    }

    #[test]
    fn a_client_that_fails_too_often_waits_even_with_the_right_token() {
        let now = Instant::now();
        let throttle = Throttle::new(now);
        for failure in 0..10 {
            assert_eq!(fail(&throttle, 1, now), Tried::Wrong { audit: failure == 0 });
        }
        let wait = BY_CLIENT.every;
        assert_eq!(throttle.attempt(client(1), now, || Some(())), Tried::Wait(wait));
        assert_eq!(throttle.attempt(client(2), now, || Some(())), Tried::Right(()), "others aren't affected");
        assert_eq!(throttle.attempt(client(1), now + wait, || Some(())), Tried::Right(()));
        assert_eq!(fail(&throttle, 1, now + wait), Tried::Wrong { audit: false });
        assert!(matches!(fail(&throttle, 1, now + wait), Tried::Wait(_)));
        assert_eq!(fail(&throttle, 1, now + AUDITED_EVERY), Tried::Wrong { audit: true });
    }

    #[test]
    fn the_failures_of_all_slow_only_clients_that_failed() {
        let now = Instant::now();
        let throttle = Throttle::new(now);
        for number in 0..200 {
            assert!(matches!(fail(&throttle, number, now), Tried::Wrong { .. }));
        }
        assert!(matches!(throttle.attempt(client(7), now, || Some(())), Tried::Wait(_)));
        assert_eq!(throttle.attempt(client(1_000), now, || Some(())), Tried::Right(()));
        let later = now + OF_ALL.every * 200;
        assert_eq!(throttle.attempt(client(7), later, || Some(())), Tried::Right(()));
    }

    #[test]
    fn the_memory_and_the_audit_log_are_bounded_for_any_number_of_clients() {
        let now = Instant::now();
        let throttle = Throttle::new(now);
        let audited = (0..CLIENTS_MAX as u32 + 50).filter(|number| {
            let at = now + Duration::from_micros(u64::from(*number));
            fail(&throttle, *number, at) == Tried::Wrong { audit: true }
        });
        assert_eq!(audited.count(), AUDITED.burst as usize);
        let failures = throttle.lock();
        assert_eq!(failures.clients.len(), CLIENTS_MAX);
        assert!(!failures.clients.contains_key(&client(0).network()), "the oldest is forgotten");
    }
}
