//! Asks sentinels for the master.
//!
//! Source: "Guidelines for Redis clients with support for Redis Sentinel". A server counts as the master only if its own
//! answer to `ROLE` says so, because a sentinel may not know of a failover yet.

use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{ConnectionAddr, RedisResult, TlsMode};
use tokio::sync::Mutex;

use super::{Server, unknown};
use crate::config;
use crate::config::redis_servers::host_and_port;

pub(super) struct Sentinels(Mutex<SentinelClient>);

impl Sentinels {
    /// Prepares the questions. The host of `redis.url` is the name of the master.
    pub(super) fn new(server: &Server, settings: &config::Redis) -> RedisResult<Self> {
        let (master, tls) = match server.info.addr() {
            ConnectionAddr::TcpTls { host, insecure: true, .. } => (host.as_str(), Some(TlsMode::Insecure)),
            ConnectionAddr::TcpTls { host, insecure: false, .. } => (host.as_str(), Some(TlsMode::Secure)),
            ConnectionAddr::Tcp(host, _) => (host.as_str(), None),
            _ => return Err(unknown("redis.url has no host")),
        };
        let entries = settings.sentinels.iter().filter_map(|entry| host_and_port(entry));
        let addresses: Vec<_> = entries.map(|(host, port)| server.address(host, port)).collect();
        let redis = server.info.redis_settings();
        let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
            .set_client_to_redis_db(redis.db())
            .set_client_to_redis_tcp_settings(server.info.tcp_settings().clone())
            .set_client_to_sentinel_tcp_settings(server.info.tcp_settings().clone());
        if let Some(mode) = tls {
            builder = builder.set_client_to_redis_tls_mode(mode).set_client_to_sentinel_tls_mode(mode);
        }
        if let Some(certificates) = &server.certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        if let Some(username) = redis.username() {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = redis.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if !settings.sentinel_username.is_empty() {
            builder = builder.set_client_to_sentinel_username(&settings.sentinel_username);
        }
        if !settings.sentinel_password.is_empty() {
            builder = builder.set_client_to_sentinel_password(settings.sentinel_password.expose());
        }
        Ok(Self(Mutex::new(builder.build()?)))
    }

    /// The address of the master.
    pub(super) async fn master(&self) -> RedisResult<ConnectionAddr> {
        let found = self.0.lock().await.async_get_client().await;
        let client = found.map_err(|error| unknown(&format!("no sentinel names a master: {error}")))?;
        Ok(client.get_connection_info().addr().clone())
    }
}
