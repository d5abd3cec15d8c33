//! Reads the metadata of the store: its version, how many webhooks there should be, and what was declared.

use redis::{RedisResult, Value};

use super::{Listing, WebhookStore};
use crate::store::is_away;
use crate::store::reading::{StoreSummary, Version};

impl WebhookStore {
    /// All webhooks and the metadata of the store, read in one transaction.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn read(&self) -> RedisResult<(StoreSummary, Listing)> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        self.query_metadata(&mut pipe).cmd("HGETALL").arg(self.keys.webhooks());
        let (mut peek, entries) = self.answers(&pipe).await?;
        let listing = Listing::read(redis::from_redis_value(entries)?, &self.sealing);
        peek.found = listing.names.len() as u64;
        Ok((peek, listing))
    }

    /// The metadata of the store. If it is unchanged, there is nothing new to read.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn peek(&self) -> RedisResult<StoreSummary> {
        let mut pipe = redis::pipe();
        self.query_metadata(&mut pipe).cmd("HLEN").arg(self.keys.webhooks());
        let (peek, found) = self.answers(&pipe).await?;
        Ok(StoreSummary { found: redis::from_redis_value(found)?, ..peek })
    }

    /// Adds the commands that read the metadata.
    fn query_metadata<'a>(&self, pipe: &'a mut redis::Pipeline) -> &'a mut redis::Pipeline {
        pipe.ignore_errors();
        pipe.get(self.keys.webhooks_version()).get(self.keys.webhooks_count()).get(self.keys.webhooks_declared())
    }

    /// Runs `pipe`. Returns the metadata from the answers to [`Self::query_metadata`], and the last answer.
    async fn answers(&self, pipe: &redis::Pipeline) -> RedisResult<(StoreSummary, Value)> {
        let answers: Vec<Value> = pipe.query_async(&mut self.connection.clone()).await?;
        let [version, count, declared, last] = <[Value; 4]>::try_from(answers).map_err(|answers| {
            redis::RedisError::from((redis::ErrorKind::UnexpectedReturnType, "four answers", format!("{answers:?}")))
        })?;
        let text = |value: Value| {
            value.extract_error().and_then(|value| Ok(redis::from_redis_value::<Option<Vec<u8>>>(value)?))
        };
        let version = match text(version) {
            Ok(value) => Version::of(value.as_deref()),
            Err(error) if is_away(&error) => return Err(error),
            Err(error) => Version::Invalid(error.to_string()),
        };
        // The count and the declaration are optional, so a value that cannot be read counts as absent.
        let optional = |value: Value| text(value).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        let count = optional(count).and_then(|text| {
            let (count, at) = text.split_once(' ')?;
            Some((count.parse().ok()?, at.parse().ok()?))
        });
        let declared = optional(declared).and_then(|text| text.parse().ok());
        Ok((StoreSummary { version, count, declared, found: 0 }, last.extract_error()?))
    }
}
