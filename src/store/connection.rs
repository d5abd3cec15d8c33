//! The connection to Redis: one, multiplexed, made again by itself.

use redis::aio::{ConnectionManager, ConnectionManagerConfig};

use crate::config;

/// Opens the connection lazily: a Redis that is away is an error of each call, not of the start.
///
/// # Errors
/// Where `redis.url` can't be read.
pub fn open(settings: &config::Redis) -> redis::RedisResult<(redis::Client, ConnectionManager)> {
    let client = redis::Client::open(settings.url.as_str())?;
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_max_delay(std::time::Duration::from_millis(500))
        .set_connection_timeout(Some(settings.timeout))
        .set_response_timeout(Some(settings.timeout));
    let connection = client.get_connection_manager_lazy(config)?;
    Ok((client, connection))
}
