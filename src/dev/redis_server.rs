//! A private `redis-server` on a free port that is gone when this process is.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How long it may take to answer.
const START_MAX: Duration = Duration::from_secs(10);

/// Ends with the process, even if that is killed: the shell around the server reads from a pipe that only we
/// hold, and removes the server and its folder when the pipe closes.
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
    /// For `redis.url`.
    pub url: String,
    keeper: Child,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Errors
    /// Where there is no `redis-server`, or it doesn't answer.
    pub fn start() -> anyhow::Result<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            bail!("redis-server isn't installed; on Debian: apt-get install redis-server");
        }
        // Free a moment ago; should another process take it, the server doesn't answer as ours and the start fails.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "redis-keeper", &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A group of its own: Ctrl-C in the terminal is for us, and the worker drains before Redis goes.
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
