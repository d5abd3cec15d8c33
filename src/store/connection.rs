//! A connection to Redis: multiplexed, opened when it is first used, and replaced when it is of no more use.
//!
//! It is replaced when it was dropped, when two answers in a row didn't come in time (a connection that died without
//! FIN looks like that), and when the server behind it is the wrong one, as after a failover (`READONLY`). Whoever
//! waits for an answer on the old one gets its own error in time; everyone else goes on with the new one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, IntoConnectionInfo as _, Pipeline, RedisError, RedisFuture,
    RedisResult, ServerErrorKind, Value,
};
use tokio::sync::OnceCell;

use crate::config;

/// So many answers in a row that don't come in time make a new connection.
const TIMEOUTS_MAX: u32 = 2;
/// Unanswered keepalive probes after which the kernel gives a connection up.
const KEEPALIVE_PROBES: u32 = 3;

/// Prepares a connection. It is opened when it is first used: a Redis that is away is an error of each call, not of
/// the start.
///
/// # Errors
/// Where `redis.url` can't be read.
pub fn open(settings: &config::Redis) -> RedisResult<(Client, Connection)> {
    let client = Client::open(settings.url.as_str().into_connection_info()?.set_tcp_settings(tcp(settings.timeout)))?;
    let connection = Connection::new(client.clone(), settings.timeout);
    Ok((client, connection))
}

/// The kernel notices a connection that died without FIN as well: bytes that nobody acknowledges within twice the
/// time of an answer, or keepalive probes that nobody answers.
fn tcp(timeout: Duration) -> TcpSettings {
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time(timeout.max(second))
        .with_interval(timeout.max(second))
        .with_retries(KEEPALIVE_PROBES);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(timeout.max(second) * 2)
}

/// A connection; a clone uses the same one.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    client: Client,
    config: AsyncConnectionConfig,
    database: i64,
    present: Mutex<Arc<Link>>,
}

/// One TCP connection, or the attempt to open it, which all that want to use it wait for together.
#[derive(Default)]
struct Link {
    opened: OnceCell<RedisResult<MultiplexedConnection>>,
    /// Answers in a row that didn't come in time.
    timeouts: AtomicU32,
}

impl Connection {
    fn new(client: Client, timeout: Duration) -> Self {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(timeout)).set_response_timeout(Some(timeout));
        let database = client.get_connection_info().redis_settings().db();
        Self(Arc::new(Shared { client, config, database, present: Mutex::default() }))
    }

    /// One more to the same Redis, so that what goes over it doesn't queue behind what goes over this one.
    #[must_use]
    pub fn another(&self) -> Self {
        let Shared { client, config, database, .. } = &*self.0;
        let (client, config, database) = (client.clone(), config.clone(), *database);
        Self(Arc::new(Shared { client, config, database, present: Mutex::default() }))
    }

    fn present(&self) -> Arc<Link> {
        self.0.present.lock().expect("nothing panics while it holds the link").clone()
    }

    /// Gives the present connection up; the next call opens another.
    pub fn renew(&self) {
        self.replace(&self.present());
    }

    /// Replaces `link` if it is the present one still: of many that see it fail the first does.
    fn replace(&self, link: &Arc<Link>) {
        let mut present = self.0.present.lock().expect("nothing panics while it holds the link");
        if Arc::ptr_eq(&present, link) {
            *present = Arc::default();
            metrics::counter!("optio_webhooks_redis_reconnects_total").increment(1);
        }
    }

    async fn link(&self) -> RedisResult<(Arc<Link>, MultiplexedConnection)> {
        let link = self.present();
        let open = || async { self.0.client.get_multiplexed_async_connection_with_config(&self.0.config).await };
        match link.opened.get_or_init(open).await {
            Ok(connection) => {
                let connection = connection.clone();
                Ok((link, connection))
            }
            Err(error) => {
                let error = away(error.clone());
                self.replace(&link);
                Err(error)
            }
        }
    }

    /// Draws the conclusions from what came of a call.
    fn observe(&self, link: &Arc<Link>, came: Result<&[Value], &RedisError>) {
        match came {
            Ok(values) => {
                link.timeouts.store(0, Ordering::Relaxed);
                if values.iter().any(is_of_wrong_server) {
                    self.replace(link);
                }
            }
            Err(error) if error.is_timeout() => {
                if link.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_MAX {
                    self.replace(link);
                }
            }
            Err(error) if error.is_unrecoverable_error() => self.replace(link),
            Err(_) => {}
        }
    }
}

/// Whatever the reason, a connection that can't be opened is a Redis that is away: it may be mended there. The text
/// says why.
fn away(error: RedisError) -> RedisError {
    if error.is_io_error() {
        return error;
    }
    RedisError::from((ErrorKind::Io, "no connection can be opened", error.to_string()))
}

/// A replica, or a server that knows no more who its primary is: another connection may lead to the right one.
fn is_of_wrong_server(value: &Value) -> bool {
    let Value::ServerError(error) = value else { return false };
    matches!(error.kind(), Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)) || error.code() == "NOAUTH"
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (link, mut connection) = self.link().await?;
            let came = connection.send_packed_command(cmd).await;
            self.observe(&link, came.as_ref().map(std::slice::from_ref));
            came
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (link, mut connection) = self.link().await?;
            let came = connection.send_packed_commands(pipeline, offset, count).await;
            self.observe(&link, came.as_deref());
            came
        })
    }

    fn get_db(&self) -> i64 {
        self.0.database
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_wrong_server_is_told_from_one_that_refuses_a_command() {
        let read = |text: &[u8]| redis::parse_redis_value(text).unwrap();
        assert!(is_of_wrong_server(&read(b"-READONLY You can't write against a read only replica.\r\n")));
        assert!(!is_of_wrong_server(&read(b"-OOM command not allowed\r\n")));
        assert!(!is_of_wrong_server(&read(b"+OK\r\n")));
    }
}
