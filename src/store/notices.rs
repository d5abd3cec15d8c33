//! What operational events tell about webhooks: the dead letters that were not told yet, and what was told.

use std::collections::{HashMap, HashSet};

use redis::{AsyncCommands as _, RedisError, RedisResult, Script};

use super::Keys;
use super::connection::Connection;
use super::is_away;
use crate::operational::telling::{Died, Told};
use crate::webhook::WebhookId;

/// The end of the field that has the time of a webhook's first death.
pub const SINCE: &str = ":since";

/// Takes deaths that were told from those that were not. Later deaths count from now on.
const TAKE: &str = r"
    local left = redis.call('HINCRBY', KEYS[1], ARGV[1], -tonumber(ARGV[2]))
    if left > 0 then
        redis.call('HSET', KEYS[1], ARGV[1] .. ':since', ARGV[3])
    else
        redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. ':since')
    end
    return left";

/// The state of all webhooks that matters for operational events.
#[derive(Debug, Default)]
pub struct State {
    /// Since when each webhook has failed without a success, in Unix milliseconds.
    pub failing: HashMap<WebhookId, i64>,
    /// The webhooks whose endpoints back off.
    pub backing_off: HashSet<WebhookId>,
    /// The dead letters that were not told yet.
    pub died: HashMap<WebhookId, Died>,
    /// What was told.
    pub told: HashMap<WebhookId, Told>,
    /// Why one of the others can't be read. It is empty then.
    pub unreadable: Option<RedisError>,
}

/// Access to the notices.
#[derive(Clone)]
pub struct Notices {
    connection: Connection,
    keys: Keys,
}

impl Notices {
    /// Uses `connection`.
    #[must_use]
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self { connection, keys }
    }

    /// The state of all webhooks. Entries that can't be parsed are left out, and so is a whole key of another type
    /// ([`State::unreadable`]), except for what was told: without it, everything would be told again and again.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn state(&self, now_ms: i64) -> RedisResult<State> {
        type Fields = RedisResult<Vec<(Vec<u8>, Vec<u8>)>>;
        let mut pipe = redis::pipe();
        pipe.hgetall(self.keys.failing()).hgetall(self.keys.died()).hgetall(self.keys.notices());
        pipe.zrangebyscore(self.keys.backing_off(), now_ms, "+inf").ignore_errors();
        let answers: (Fields, Fields, Fields, RedisResult<Vec<Vec<u8>>>) =
            pipe.query_async(&mut self.connection.clone()).await?;
        let (failing, died, told, backing_off) = answers;
        let mut unreadable = None;
        let failing = readable(failing, &mut unreadable)?;
        let died = readable(died, &mut unreadable)?;
        let backing_off = readable(backing_off, &mut unreadable)?;
        let told = told?;
        let died: HashMap<Vec<u8>, Vec<u8>> = died.into_iter().collect();
        Ok(State {
            failing: failing.iter().filter_map(|(id, entry)| Some((parsed(id)?, since(entry)?))).collect(),
            backing_off: backing_off.iter().filter_map(|id| parsed(id)).collect(),
            died: died.iter().filter_map(|(id, count)| died_of(&died, id, count)).collect(),
            told: told.iter().filter_map(|(id, json)| Some((parsed(id)?, read(json)))).collect(),
            unreadable,
        })
    }

    /// What was told about these webhooks.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn told(&self, webhook: WebhookId) -> RedisResult<Told> {
        let json: Option<Vec<u8>> = self.connection.clone().hget(self.keys.notices(), webhook.to_string()).await?;
        Ok(json.map(|json| read(&json)).unwrap_or_default())
    }

    /// Remembers what was told. `died` are the deaths among it.
    ///
    /// # Errors
    /// Errors of Redis. The same may then be told again, with the same ids.
    pub async fn remember(&self, webhook: WebhookId, told: &Told, died: Option<Died>, now_ms: i64) -> RedisResult<()> {
        let json = serde_json::to_vec(told).expect("numbers always serialize");
        let connection = &mut self.connection.clone();
        let () = connection.hset(self.keys.notices(), webhook.to_string(), json).await?;
        let Some(Died { count, .. }) = died else { return Ok(()) };
        let script = Script::new(TAKE);
        let mut take = script.key(self.keys.died());
        take.arg(webhook.to_string()).arg(count).arg(now_ms).invoke_async(connection).await
    }

    /// Forgets webhooks that no longer exist.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn forget(&self, webhooks: &[WebhookId]) -> RedisResult<()> {
        let ids: Vec<String> = webhooks.iter().map(ToString::to_string).collect();
        let deaths: Vec<String> = ids.iter().flat_map(|id| [id.clone(), format!("{id}{SINCE}")]).collect();
        let mut pipe = redis::pipe();
        pipe.hdel(self.keys.notices(), ids).ignore().hdel(self.keys.died(), deaths).ignore();
        pipe.query_async(&mut self.connection.clone()).await
    }
}

/// Nothing in place of a key that can't be read, such as one of another type.
fn readable<T: Default>(answer: RedisResult<T>, unreadable: &mut Option<RedisError>) -> RedisResult<T> {
    answer.or_else(|error| {
        if is_away(&error) {
            return Err(error);
        }
        *unreadable = Some(error);
        Ok(T::default())
    })
}

fn parsed(id: &[u8]) -> Option<WebhookId> {
    std::str::from_utf8(id).ok()?.parse().ok()
}

fn number(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// The first part of an entry of `failing`.
fn since(entry: &[u8]) -> Option<i64> {
    number(entry.split(|byte| *byte == b':').next()?)
}

fn died_of(all: &HashMap<Vec<u8>, Vec<u8>>, id: &[u8], count: &[u8]) -> Option<(WebhookId, Died)> {
    let webhook = parsed(id)?;
    let count = u64::try_from(number(count)?).ok().filter(|count| *count > 0)?;
    let since_ms = number(all.get(&[id, SINCE.as_bytes()].concat())?)?;
    Some((webhook, Died { count, since_ms }))
}

/// An entry that can't be parsed counts as if nothing had been told.
fn read(json: &[u8]) -> Told {
    serde_json::from_slice(json).unwrap_or_default()
}
