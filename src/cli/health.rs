//! `health`: asks the process on this machine whether it is well, for health checks of containers without other tools.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Failure, say};
use crate::config::Config;

/// The time that each step may take.
const STEP_MAX: Duration = Duration::from_secs(5);
/// The time between two tries of `--wait`.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 << 10;

/// `optio-webhooks health`
#[derive(clap::Args)]
pub struct Health {
    /// Ask whether it can deliver (/readyz), and not only whether it moves (/healthz).
    #[arg(long)]
    ready: bool,
    /// Wait until it is well, for at most this long, such as 30s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s", hide_default_value = true)]
    wait: Duration,
}

impl Health {
    /// Asks at `admin.listen`.
    ///
    /// # Errors
    /// The process does not answer in time, or is not well.
    pub fn run(&self, config: &Config) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            match self.ask_once(config) {
                Err(_) if began.elapsed() < self.wait => std::thread::sleep(RETRY_INTERVAL),
                outcome => return outcome,
            }
        }
    }

    fn ask_once(&self, config: &Config) -> Result<(), Failure> {
        let path = if self.ready { "/readyz" } else { "/healthz" };
        let at = reachable(config.admin.listen);
        let (status, body) = ask(at, path).with_context(|| format!("http://{at}{path} does not answer"))?;
        if status == "200" {
            say(body.trim());
            return Ok(());
        }
        Err(anyhow::anyhow!("http://{at}{path} answers {status}: {}", body.trim()).into())
    }
}

/// An address at which this machine reaches a server that listens at `listen`.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Returns the status and the body.
fn ask(at: SocketAddr, path: &str) -> anyhow::Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&at, STEP_MAX)?;
    stream.set_read_timeout(Some(STEP_MAX))?;
    stream.set_write_timeout(Some(STEP_MAX))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).context("the answer is not HTTP")?;
    Ok((status.to_owned(), body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_loopback() {
        for (listen, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:2", "[::1]:2"), ("10.0.0.7:3", "10.0.0.7:3")] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
