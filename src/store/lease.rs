//! A lease that one process holds at a time: a key that expires unless its holder renews it.

use std::time::Duration;

use crate::store::connection::Connection;
use redis::Script;
use uuid::Uuid;

use super::Keys;

/// The time until a lease expires that nobody renews, and so the longest wait for a holder that died.
pub const TTL: Duration = Duration::from_secs(10);

/// The lease of a replay that runs, or of the worker that writes operational events.
#[derive(Clone)]
pub struct Lease {
    connection: Connection,
    key: String,
    token: String,
}

/// The answer to a request for the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// This process holds the lease for [`TTL`].
    Ours,
    /// Another process holds the lease. The text is how that process describes itself.
    Theirs(String),
}

impl Lease {
    /// Creates the lease without acquiring it. `who` describes the holder to processes that wait for the lease.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys, who: &str) -> Self {
        Self { connection, key: keys.replay_lease(), token: format!("{} {who}", Uuid::now_v7()) }
    }

    /// Creates the lease of the worker that writes operational events, without acquiring it.
    #[must_use]
    pub fn of_notices(connection: Connection, keys: &Keys, who: &str) -> Self {
        Self { key: keys.notices_lease(), ..Self::new(connection, keys, who) }
    }

    /// Acquires the lease if it is free, and renews it if this process holds it.
    ///
    /// # Errors
    /// Errors of Redis. This process may still hold the lease.
    pub async fn ask(&self) -> redis::RedisResult<LeaseAnswer> {
        let holder: Vec<u8> = Script::new(ASK)
            .key(&self.key)
            .arg(&self.token)
            .arg(TTL.as_millis() as u64)
            .invoke_async(&mut self.connection.clone())
            .await?;
        let holder = String::from_utf8_lossy(&holder).into_owned();
        if holder == self.token {
            return Ok(LeaseAnswer::Ours);
        }
        Ok(LeaseAnswer::Theirs(holder.split_once(' ').map_or(holder.clone(), |(_, who)| who.to_owned())))
    }

    /// Renews the lease. Returns false if this process no longer held it.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn renew(&self) -> redis::RedisResult<bool> {
        let ttl_ms = TTL.as_millis() as u64;
        Script::new(RENEW).key(&self.key).arg(&self.token).arg(ttl_ms).invoke_async(&mut self.connection.clone()).await
    }

    /// Releases the lease if this process holds it.
    ///
    /// # Errors
    /// Errors of Redis. The lease then expires by itself.
    pub async fn give_back(&self) -> redis::RedisResult<()> {
        Script::new(GIVE_BACK).key(&self.key).arg(&self.token).invoke_async(&mut self.connection.clone()).await
    }
}

/// Acquires or renews the lease, and returns the token of its holder.
const ASK: &str = "
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'string' and holder ~= ARGV[1] then
    -- This program did not set a key that never expires, or only after more than the TTL. Let it expire like a lease.
    local left = redis.call('PTTL', KEYS[1])
    if left < 0 or left > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
    return holder
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
";

const RENEW: &str = "
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
";

/// The check and the removal are one step: if the lease expired between them, the removal would end the lease of
/// another process.
const GIVE_BACK: &str = "
if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
";
