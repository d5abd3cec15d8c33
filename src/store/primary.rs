//! Finds the Redis server that takes the writes: the one of `redis.url`, the master that sentinels name, or the node of
//! a cluster that has this program's keys.
//!
//! It is asked before each new connection, so that the connections after a failover lead to the new server.

mod cluster;
mod sentinels;

use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisError,
    RedisResult, TlsCertificates,
};

use crate::config;
use cluster::Cluster;
use sentinels::Sentinels;

/// The number of unanswered keepalive probes after which the kernel closes a connection.
const KEEPALIVE_PROBES: u32 = 3;

/// The shortest time that sentinels get to name the master. The client asks them one after another, and allows a second to
/// connect to each.
const SENTINELS_MIN: Duration = Duration::from_secs(5);

/// Finds the server that takes the writes.
pub struct Primary {
    server: Server,
    found_by: FoundBy,
}

/// How connections to any of the servers are made.
#[derive(Clone)]
struct Server {
    /// What `redis.url` says.
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    timeout: Duration,
}

enum FoundBy {
    Url(Client),
    Sentinels(Sentinels),
    Cluster(Cluster),
}

impl Primary {
    /// Prepares the search. Nothing is asked yet.
    ///
    /// # Errors
    /// If `redis.url` is not valid, or a file for TLS can't be used.
    pub fn new(settings: &config::Redis) -> RedisResult<Self> {
        let info = settings.url.expose().into_connection_info()?.set_tcp_settings(tcp(settings.timeout));
        let certificates = if settings.has_tls_files() {
            let unusable =
                |problem: config::BadConfig| (ErrorKind::InvalidClientConfig, "certificates", problem.to_string());
            Some(settings.tls_certificates().map_err(unusable)?)
        } else {
            None
        };
        let server = Server { info, certificates, timeout: settings.timeout };
        let found_by = if !settings.sentinels.is_empty() {
            FoundBy::Sentinels(Sentinels::new(&server, settings)?)
        } else if !settings.cluster_nodes.is_empty() {
            FoundBy::Cluster(Cluster::new(server.clone(), settings))
        } else {
            FoundBy::Url(server.client(server.info.addr().clone())?)
        };
        Ok(Self { server, found_by })
    }

    /// The database of `redis.url`.
    #[must_use]
    pub fn database(&self) -> i64 {
        self.server.info.redis_settings().db()
    }

    /// The time limits of a connection.
    #[must_use]
    pub fn limits(&self) -> AsyncConnectionConfig {
        self.server.limits()
    }

    /// Finds the server. It takes at most three times `redis.timeout`, with sentinels at least five seconds. Cancel safe.
    ///
    /// # Errors
    /// If no sentinel and no node of the cluster knows the server. The error is one of I/O, because a later search may
    /// find it.
    pub async fn find(&self) -> RedisResult<Client> {
        // A search connects, asks, and for sentinels connects to the server to ask for its role.
        let longest = match &self.found_by {
            FoundBy::Sentinels(_) => (self.server.timeout * 3).max(SENTINELS_MIN),
            FoundBy::Cluster(_) | FoundBy::Url(_) => self.server.timeout * 3,
        };
        let search = async {
            match &self.found_by {
                FoundBy::Url(client) => Ok(client.clone()),
                FoundBy::Sentinels(sentinels) => sentinels.master().await.and_then(|found| self.server.client(found)),
                FoundBy::Cluster(cluster) => cluster.owner().await.and_then(|found| self.server.client(found)),
            }
        };
        tokio::time::timeout(longest, search).await.unwrap_or_else(|_| Err(unknown("the search takes too long")))
    }
}

impl Server {
    /// A client for the server at `address`.
    fn client(&self, address: ConnectionAddr) -> RedisResult<Client> {
        let info = self.info.clone().set_addr(address);
        match &self.certificates {
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
            None => Client::open(info),
        }
    }

    /// The address of a host that is reached in the same way as the one of `redis.url`, with or without TLS.
    fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
                host: host.to_owned(),
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host.to_owned(), port),
        }
    }

    /// The time limits of a connection.
    fn limits(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new().set_connection_timeout(Some(self.timeout)).set_response_timeout(Some(self.timeout))
    }
}

/// The error for a server that nobody knows at the moment.
fn unknown(why: &str) -> RedisError {
    RedisError::from((ErrorKind::Io, "no server is known that takes the writes", why.to_owned()))
}

/// TCP settings with which the kernel, too, notices a connection that died without FIN. It closes the connection if
/// keepalive probes stay unanswered, or if sent bytes are not acknowledged within twice `timeout`.
fn tcp(timeout: Duration) -> TcpSettings {
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time(timeout.max(second))
        .with_interval(timeout.max(second))
        .with_retries(KEEPALIVE_PROBES);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(timeout.max(second) * 2)
}
