//! A multiplexed connection to Redis that opens on first use and is replaced when it no longer works.
//!
//! It is replaced in three cases: it breaks; two answers in a row time out, which is how a connection that died without
//! FIN looks; or the server is the wrong one, as after a failover (`READONLY`) or when slots of a cluster move (`MOVED`). Calls that wait for an answer on the
//! old connection end with an error of that connection. Later calls use the new one.

use crate::metrics;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value};
use tokio::sync::OnceCell;

use super::error::code_in_script;
use super::primary::Primary;
use crate::config;

/// The number of answers in a row that must time out before the connection is replaced.
const TIMEOUTS_MAX: u32 = 2;

/// Prepares a connection. It is opened on first use: if Redis is unavailable, each call fails, but the start does not.
///
/// # Errors
/// If `redis.url` is not valid, or a file for TLS can't be used.
pub fn open(settings: &config::Redis) -> RedisResult<Connection> {
    Ok(Connection::to(Arc::new(Primary::new(settings)?)))
}

/// A connection to Redis. Clones share the same TCP connection.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    primary: Arc<Primary>,
    current: Mutex<Arc<Link>>,
    /// Answers instead of a server, in simulations.
    #[cfg(test)]
    script: Option<scripted::Script>,
}

/// One TCP connection, or the attempt to open it. All callers wait for the same attempt.
#[derive(Default)]
struct Link {
    opened: OnceCell<RedisResult<MultiplexedConnection>>,
    /// The number of answers in a row that timed out.
    timeouts: AtomicU32,
}

impl Connection {
    fn to(primary: Arc<Primary>) -> Self {
        Self(Arc::new(Shared {
            primary,
            current: Mutex::default(),
            #[cfg(test)]
            script: None,
        }))
    }

    /// Creates a second connection to the same server. Commands on it do not queue behind commands on this one.
    #[must_use]
    pub fn separate(&self) -> Self {
        Self::to(self.0.primary.clone())
    }

    /// Opens a connection of its own that receives what is published to `channel`. Cancel safe.
    ///
    /// # Errors
    /// If Redis is unavailable, or refuses the subscription.
    pub async fn subscribe(&self, channel: &str) -> RedisResult<redis::aio::PubSub> {
        let mut listening = self.0.primary.find().await?.get_async_pubsub().await?;
        listening.subscribe(channel).await?;
        Ok(listening)
    }

    fn current(&self) -> Arc<Link> {
        self.0.current.lock().expect("nothing panics while it holds the link").clone()
    }

    /// Drops the current connection. The next call opens a new one.
    pub fn renew(&self) {
        self.replace(&self.current());
    }

    /// Replaces `link` if it is still the current one. If several calls see the same link fail, only the first replaces
    /// it.
    fn replace(&self, link: &Arc<Link>) {
        let mut current = self.0.current.lock().expect("nothing panics while it holds the link");
        if Arc::ptr_eq(&current, link) {
            *current = Arc::default();
            metrics::REDIS_RECONNECTS.increment();
        }
    }

    async fn link(&self) -> RedisResult<(Arc<Link>, MultiplexedConnection)> {
        let link = self.current();
        let open = || async {
            let client = self.0.primary.find().await?;
            client.get_multiplexed_async_connection_with_config(&self.0.primary.limits()).await
        };
        match link.opened.get_or_init(open).await {
            Ok(connection) => {
                let connection = connection.clone();
                Ok((link, connection))
            }
            Err(error) => {
                let error = connection_error(error.clone());
                self.replace(&link);
                Err(error)
            }
        }
    }

    /// Replaces `link` if the result of a call shows that it no longer works.
    fn observe(&self, link: &Arc<Link>, result: Result<&[Value], &RedisError>) {
        match result {
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

/// Turns an error of opening a connection into an I/O error, so that callers treat Redis as unavailable and try again:
/// an operator may fix the cause on the server. The text keeps the cause.
fn connection_error(error: RedisError) -> RedisError {
    if error.is_io_error() {
        return error;
    }
    RedisError::from((ErrorKind::Io, "the connection cannot be opened", error.to_string()))
}

/// Whether the answer comes from the wrong server: a replica, a server that lost its primary, a node of a cluster that
/// does not have the keys or lost the others, or one that requires authentication. A new connection may reach the right
/// server.
fn is_of_wrong_server(value: &Value) -> bool {
    use ServerErrorKind::{ClusterDown, MasterDown, Moved, ReadOnly};
    let Value::ServerError(error) = value else { return false };
    matches!(error.kind(), Some(ReadOnly | MasterDown | Moved | ClusterDown))
        || error.code() == "NOAUTH"
        || error.details().and_then(code_in_script) == Some("READONLY")
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            #[cfg(test)]
            if let Some(script) = &self.0.script {
                return script(cmd).await;
            }
            let (link, mut connection) = self.link().await?;
            let result = connection.send_packed_command(cmd).await;
            self.observe(&link, result.as_ref().map(std::slice::from_ref));
            result
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            #[cfg(test)]
            if let Some(script) = &self.0.script {
                return scripted::answers(script, pipeline).await;
            }
            let (link, mut connection) = self.link().await?;
            let result = connection.send_packed_commands(pipeline, offset, count).await;
            self.observe(&link, result.as_deref());
            result
        })
    }

    fn get_db(&self) -> i64 {
        self.0.primary.database()
    }
}

/// A connection whose answers come from a function, for simulations.
#[cfg(test)]
pub(crate) mod scripted {
    use super::*;

    /// Answers a command.
    pub type Script = Arc<dyn Fn(&Cmd) -> RedisFuture<'static, Value> + Send + Sync>;

    /// A connection whose commands `script` answers.
    pub fn connection(settings: &config::Redis, script: Script) -> Connection {
        let primary = Arc::new(Primary::new(settings).expect("the settings are valid"));
        Connection(Arc::new(Shared { primary, current: Mutex::default(), script: Some(script) }))
    }

    /// The answers to the commands of a pipeline that is no transaction.
    pub(super) async fn answers(script: &Script, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut answers = Vec::new();
        for command in pipeline.cmd_iter() {
            answers.push(script(command).await?);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_from_a_replica_or_another_node_shows_the_wrong_server() {
        let read = |text: &[u8]| redis::parse_redis_value(text).unwrap();
        assert!(is_of_wrong_server(&read(b"-READONLY You can't write against a read only replica.\r\n")));
        assert!(is_of_wrong_server(&read(b"-MOVED 3999 127.0.0.1:6381\r\n")));
        assert!(!is_of_wrong_server(&read(b"-OOM command not allowed\r\n")));
        assert!(!is_of_wrong_server(&read(b"+OK\r\n")));
    }
}
