//! Where names are known: `/etc/hosts`, the name servers, and what else the system is configured to ask.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{FAILED_FOR, Limits};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";
/// How often it is looked whether these files changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Calls of `getaddrinfo` at once.
const SYSTEM_CALLS_MAX: usize = 8;
/// Questions at once over one TCP connection to a name server. Its own default of 32 would make names wait for each other.
const QUESTIONS_MAX: usize = 4_096;

/// The system's configuration at one moment.
pub struct System {
    /// Asks the name servers; None where none is configured.
    pub dns: Option<TokioResolver>,
    /// `/etc/hosts`
    pub hosts: Hosts,
    /// Whether `getaddrinfo` asks more than these two.
    pub has_further: bool,
}

/// All sources; the system's files are read again when they change.
pub struct Sources {
    current: Mutex<Current>,
    limits: Limits,
    /// For `getaddrinfo`; None where only a given name server counts.
    pub system_permits: Option<Arc<Semaphore>>,
}

struct Current {
    system: Arc<System>,
    stamps: [Option<(SystemTime, u64)>; 3],
    looked: Instant,
}

impl Sources {
    /// The system's.
    pub fn system(limits: Limits) -> Self {
        let current = Current { system: Arc::new(read(limits)), stamps: stamps(), looked: Instant::now() };
        let system_permits = Some(Arc::new(Semaphore::new(SYSTEM_CALLS_MAX)));
        Self { current: Mutex::new(current), limits, system_permits }
    }

    /// One name server.
    pub fn server(server: SocketAddr, limits: Limits) -> Self {
        let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut name_server.connections {
            connection.port = server.port();
        }
        let config = ResolverConfig::from_parts(None, vec![], vec![name_server]);
        let dns = resolver(config, ResolverOpts::default(), limits);
        let system = Arc::new(System { dns, hosts: Hosts::default(), has_further: false });
        let current = Current { system, stamps: [None; 3], looked: Instant::now() };
        Self { current: Mutex::new(current), limits, system_permits: None }
    }

    /// As configured now.
    pub fn current(&self) -> Arc<System> {
        let mut current = self.current.lock().expect("nothing panics while it holds the sources");
        if self.system_permits.is_some() && current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            let stamps = stamps();
            if stamps != current.stamps {
                tracing::info!("the configuration of name resolution changed: it is read again");
                current.system = Arc::new(read(self.limits));
                current.stamps = stamps;
            }
        }
        current.system.clone()
    }
}

fn stamps() -> [Option<(SystemTime, u64)>; 3] {
    [RESOLV_CONF, HOSTS, NSSWITCH_CONF].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(limits: Limits) -> System {
    let dns = match read_system_conf() {
        Ok((config, options)) => resolver(config, options, limits),
        Err(error) => {
            tracing::info!(%error, "{RESOLV_CONF} names no name server: names are left to the system");
            None
        }
    };
    let hosts = Hosts::from_system();
    if let Err(error) = &hosts {
        tracing::info!(%error, "{HOSTS} can't be read: its names are left to the system");
    }
    let has_further = hosts.is_err() || std::fs::read_to_string(NSSWITCH_CONF).is_ok_and(|text| has_further(&text));
    System { dns, hosts: hosts.unwrap_or_default(), has_further }
}

/// Whether the `hosts:` line of `nsswitch.conf` has more than files and DNS.
fn has_further(text: &str) -> bool {
    let sources = text.lines().filter_map(|line| line.trim_start().strip_prefix("hosts:"));
    sources
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .any(|word| !word.starts_with('[') && !word.ends_with(']') && word != "files" && word != "dns")
}

fn resolver(config: ResolverConfig, mut options: ResolverOpts, limits: Limits) -> Option<TokioResolver> {
    // Two rounds within one lookup's time: another name server gets its turn.
    options.timeout = options.timeout.min(limits.timeout / 2);
    options.attempts = 2;
    options.use_hosts_file = ResolveHosts::Never;
    options.max_active_requests = QUESTIONS_MAX;
    options.positive_max_ttl = Some(limits.cache_max);
    options.negative_max_ttl = Some(FAILED_FOR);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
    match builder.build() {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::warn!(%error, "the name servers can't be asked: names are left to the system");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_asked_where_it_knows_more_than_files_and_dns() {
        assert!(!has_further("passwd: files\nhosts:  files dns\n"));
        assert!(!has_further("# hosts: files mdns4\nhosts: dns [!UNAVAIL=return] files # mymachines\n"));
        assert!(has_further("hosts: files mdns4_minimal [NOTFOUND=return] dns"));
        assert!(has_further("hosts: mymachines resolve files myhostname dns"));
        assert!(!has_further(""));
    }
}
