//! One at a time, among all processes: a key that expires unless its holder renews it.

use std::time::Duration;

use crate::store::connection::Connection;
use redis::{AsyncCommands as _, Script};
use uuid::Uuid;

use super::Keys;

/// A holder that dies is waited for no longer than this.
pub const LASTS: Duration = Duration::from_secs(10);

/// The lease of replays.
#[derive(Clone)]
pub struct Lease {
    connection: Connection,
    key: String,
    token: String,
}

/// What came of asking for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It is ours, for [`LASTS`].
    Ours,
    /// Someone else has it; who, as they put it.
    Theirs(String),
}

impl Lease {
    /// Not held yet. `who` is told to whoever waits for it.
    #[must_use]
    pub fn new(connection: Connection, keys: &Keys, who: &str) -> Self {
        Self { connection, key: keys.replay_lease(), token: format!("{} {who}", Uuid::now_v7()) }
    }

    /// Takes it if it is free, and renews it if it is ours.
    ///
    /// # Errors
    /// Redis's; then it may be ours or not.
    pub async fn ask(&self) -> redis::RedisResult<Asked> {
        let holder: Vec<u8> = Script::new(ASK)
            .key(&self.key)
            .arg(&self.token)
            .arg(LASTS.as_millis() as u64)
            .invoke_async(&mut self.connection.clone())
            .await?;
        let holder = String::from_utf8_lossy(&holder).into_owned();
        if holder == self.token {
            return Ok(Asked::Ours);
        }
        Ok(Asked::Theirs(holder.split_once(' ').map_or(holder.clone(), |(_, who)| who.to_owned())))
    }

    /// Renews it: whether it was ours all the time.
    ///
    /// # Errors
    /// Redis's.
    pub async fn renew(&self) -> redis::RedisResult<bool> {
        let lasts = LASTS.as_millis() as u64;
        Script::new(RENEW).key(&self.key).arg(&self.token).arg(lasts).invoke_async(&mut self.connection.clone()).await
    }

    /// Gives it back, if it is ours.
    ///
    /// # Errors
    /// Redis's; then it expires by itself.
    pub async fn give_back(&self) -> redis::RedisResult<()> {
        let holder: Option<Vec<u8>> = self.connection.clone().get(&self.key).await?;
        if holder.as_deref() == Some(self.token.as_bytes()) {
            let () = self.connection.clone().del(&self.key).await?;
        }
        Ok(())
    }
}

/// The holder, which is the asker where it was free.
const ASK: &str = "
local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'string' and holder ~= ARGV[1] then
    -- One that doesn't expire, or much later, isn't a lease of this program: it ends like one.
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
