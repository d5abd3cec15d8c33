//! A private `redis-server` on a free port. It ends with this process.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// The time that the server has to answer its first connection.
const START_MAX: Duration = Duration::from_secs(10);

/// A shell script that runs the server. It ends with this process even if that is killed: it reads from a pipe that
/// only this process holds open, and removes the server and its folder when the pipe closes.
const KEEPER: &str = r#"
dir=$(mktemp -d) || exit 1
redis-server --port "$1" --bind 127.0.0.1 --dir "$dir" --save '' --appendonly no >/dev/null 2>&1 </dev/null &
pid=$!
read -r _
kill "$pid" 2>/dev/null
wait "$pid"
rm -rf "$dir"
"#;

/// A running server.
pub struct RedisServer {
    /// The value for `redis.url`.
    pub url: String,
    keeper: Child,
}

impl RedisServer {
    /// Starts a server, and blocks until it answers.
    ///
    /// # Errors
    /// `redis-server` is not installed, or it does not answer within 10 s.
    pub fn start() -> anyhow::Result<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            bail!("redis-server isn't installed; on Debian: apt-get install redis-server");
        }
        // Another process may take the port first. Then the server can't bind it, and the start fails.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "redis-keeper", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // In its own process group Ctrl-C does not reach the server, so the worker can drain while Redis still
            // runs.
            .process_group(0)
            .spawn()
            .context("a shell for redis-server")?;
        let mut server = Self { url: format!("redis://127.0.0.1:{port}/"), keeper };
        let deadline = Instant::now() + START_MAX;
        while redis::Client::open(server.url.as_str())?.get_connection().is_err() {
            if Instant::now() > deadline || server.keeper.try_wait()?.is_some() {
                bail!("redis-server doesn't answer on port {port}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
