//! The sessions that people signed out of. Redis keeps each until it would have ended by itself.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use redis::{AsyncCommands as _, RedisResult};
use uuid::Uuid;

use super::key::FRESH_FOR;
use crate::store::Keys;
use crate::store::connection::Connection;

/// The number of sessions whose state is kept in memory.
const KEPT_MAX: usize = 1_000;

/// Access to the revoked sessions, each read at most once every [`FRESH_FOR`].
pub struct Revoked {
    connection: Connection,
    keys: Keys,
    last: Mutex<HashMap<Uuid, (Instant, bool)>>,
}

impl Revoked {
    /// The revoked sessions of the Redis behind `connection`.
    pub fn new(connection: Connection, keys: Keys) -> Self {
        Self { connection, keys, last: Mutex::default() }
    }

    /// Whether a session is revoked.
    pub async fn contains(&self, session: Uuid) -> RedisResult<bool> {
        let known = self.last.lock().expect("nothing panics while it holds the sessions").get(&session).copied();
        if let Some((_, is_revoked)) = known.filter(|(at, _)| at.elapsed() < FRESH_FOR) {
            return Ok(is_revoked);
        }
        let is_revoked = self.connection.clone().exists(self.keys.revoked_session(session)).await?;
        self.keep(session, is_revoked);
        Ok(is_revoked)
    }

    /// Revokes a session that would end in `left_s` seconds.
    pub async fn add(&self, session: Uuid, left_s: i64) -> RedisResult<()> {
        let left_s = u64::try_from(left_s).unwrap_or(0).max(1);
        let () = self.connection.clone().set_ex(self.keys.revoked_session(session), 1, left_s).await?;
        self.keep(session, true);
        Ok(())
    }

    fn keep(&self, session: Uuid, is_revoked: bool) {
        let mut last = self.last.lock().expect("nothing panics while it holds the sessions");
        if last.len() >= KEPT_MAX {
            last.retain(|_, (at, _)| at.elapsed() < FRESH_FOR);
        }
        if last.len() < KEPT_MAX {
            last.insert(session, (Instant::now(), is_revoked));
        }
    }
}
