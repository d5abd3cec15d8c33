//! The sources of names: `/etc/hosts`, the name servers, and the other sources that the system is configured to ask.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Limits, NEGATIVE_TTL};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const NSSWITCH_CONF: &str = "/etc/nsswitch.conf";
/// How often these files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The most concurrent calls of `getaddrinfo`.
const SYSTEM_CALLS_MAX: usize = 8;
/// The most concurrent queries over one TCP connection to a name server. With hickory's default of 32, names would wait
/// for each other.
const QUERIES_MAX: usize = 4_096;
/// How long the name servers have to show that they answer at all.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// How long it is believed whether they do.
const ANSWERING_FOR: Duration = Duration::from_secs(3);

/// The system's configuration of name resolution at one moment.
pub struct System {
    /// Asks the name servers; `None` if none is configured.
    pub dns: Option<TokioResolver>,
    /// The contents of `/etc/hosts`.
    pub hosts: Hosts,
    /// Whether `getaddrinfo` asks sources beyond these two.
    pub has_other_sources: bool,
}

/// The current sources. The system's files are read again when they change.
pub struct Sources {
    current: Mutex<Current>,
    limits: Limits,
    /// Whether the name servers answered when they were last asked, and when that was.
    answering: tokio::sync::Mutex<Option<(Instant, bool)>>,
    /// Permits for calls of `getaddrinfo`; `None` if only a given name server is asked.
    pub system_permits: Option<Arc<Semaphore>>,
}

struct Current {
    system: Arc<System>,
    /// The modification time and size of each file.
    stamps: [Option<(SystemTime, u64)>; 3],
    checked_at: Instant,
}

impl Sources {
    /// Uses the system's sources.
    pub fn system(limits: Limits) -> Self {
        let current = Current { system: Arc::new(read(limits)), stamps: stamps(), checked_at: Instant::now() };
        let system_permits = Some(Arc::new(Semaphore::new(SYSTEM_CALLS_MAX)));
        Self { current: Mutex::new(current), limits, answering: Default::default(), system_permits }
    }

    /// Uses one name server only.
    pub fn server(server: SocketAddr, limits: Limits) -> Self {
        let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut name_server.connections {
            connection.port = server.port();
        }
        let config = ResolverConfig::from_parts(None, vec![], vec![name_server]);
        let dns = resolver(config, ResolverOpts::default(), limits);
        let system = Arc::new(System { dns, hosts: Hosts::default(), has_other_sources: false });
        let current = Current { system, stamps: [None; 3], checked_at: Instant::now() };
        Self { current: Mutex::new(current), limits, answering: Default::default(), system_permits: None }
    }

    /// Whether the name servers answer at all, about any name. One question serves all that ask within a few seconds.
    pub async fn name_servers_answer(&self) -> bool {
        let mut known = self.answering.lock().await;
        if let Some((at, answering)) = *known
            && at.elapsed() < ANSWERING_FOR
        {
            return answering;
        }
        let answering = match &self.current().dns {
            None => false,
            Some(dns) => {
                // `example` has no such names (RFC 2606), and the answer to a random one is in no cache. Names below
                // `invalid` would be answered without asking anybody.
                let name = format!("probe-{:08x}.example.", rand::random::<u32>());
                let asked = tokio::time::timeout(PROBE_MAX, dns.lookup(name, RecordType::A)).await;
                matches!(asked, Ok(Ok(_) | Err(NetError::Dns(_))))
            }
        };
        *known = Some((Instant::now(), answering));
        answering
    }

    /// Returns the current configuration, after reading it again if a file has changed.
    pub fn current(&self) -> Arc<System> {
        let mut current = self.current.lock().expect("no code panics while it holds this lock");
        if self.system_permits.is_some() && current.checked_at.elapsed() >= CHECK_INTERVAL {
            current.checked_at = Instant::now();
            let stamps = stamps();
            if stamps != current.stamps {
                tracing::info!("name resolution config changed, reloading");
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
            tracing::info!(%error, "{RESOLV_CONF} can't be used: names are resolved by getaddrinfo instead");
            None
        }
    };
    let hosts = Hosts::from_system();
    if let Err(error) = &hosts {
        tracing::info!(%error, "{HOSTS} can't be read: its names are resolved by getaddrinfo instead");
    }
    let has_other_sources =
        hosts.is_err() || std::fs::read_to_string(NSSWITCH_CONF).is_ok_and(|text| lists_other_sources(&text));
    System { dns, hosts: hosts.unwrap_or_default(), has_other_sources }
}

/// Whether the `hosts:` line of `nsswitch.conf` lists sources other than files and DNS.
fn lists_other_sources(text: &str) -> bool {
    let sources = text.lines().filter_map(|line| line.trim_start().strip_prefix("hosts:"));
    sources
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .any(|word| !word.starts_with('[') && !word.ends_with(']') && word != "files" && word != "dns")
}

fn resolver(config: ResolverConfig, mut options: ResolverOpts, limits: Limits) -> Option<TokioResolver> {
    // Two rounds fit into the time of one lookup, so that a second name server is tried when the first doesn't answer.
    options.timeout = options.timeout.min(limits.timeout / 2);
    options.attempts = 2;
    options.use_hosts_file = ResolveHosts::Never;
    options.max_active_requests = QUERIES_MAX;
    options.positive_max_ttl = Some(limits.cache_max);
    options.negative_max_ttl = Some(NEGATIVE_TTL);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
    match builder.build() {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::warn!(%error, "the DNS resolver can't be built: names are resolved by getaddrinfo instead");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nsswitch_sources_beyond_files_and_dns_are_noticed() {
        assert!(!lists_other_sources("passwd: files\nhosts:  files dns\n"));
        assert!(!lists_other_sources("# hosts: files mdns4\nhosts: dns [!UNAVAIL=return] files # mymachines\n"));
        assert!(lists_other_sources("hosts: files mdns4_minimal [NOTFOUND=return] dns"));
        assert!(lists_other_sources("hosts: mymachines resolve files myhostname dns"));
        assert!(!lists_other_sources(""));
    }
}
