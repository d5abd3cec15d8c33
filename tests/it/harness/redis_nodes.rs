//! Several Redis servers that belong together: a master with replicas and sentinels, or a cluster.

use std::process::{Child, Command, Stdio};

use super::eventually;
use super::service::free_ports;

/// How long a server may be away until the others replace it, in milliseconds.
const AWAY_MS: u16 = 1_000;

/// One server on loopback.
pub struct Node {
    child: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Node {
    /// Starts a server with these lines of configuration, and waits until it answers.
    async fn start(lines: &[String]) -> Self {
        let port = free_ports(2);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("redis.conf");
        let mut settings = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsave \"\"\nrepl-diskless-sync-delay 0\n",
            folder.path().display()
        );
        if lines.iter().any(|line| line.starts_with("cluster-enabled")) {
            settings += &format!("cluster-port {}\n", port + 1);
        }
        std::fs::write(&path, settings + &lines.join("\n") + "\n").unwrap();
        let is_sentinel = lines.iter().any(|line| line.starts_with("sentinel "));
        let mut command = Command::new("redis-server");
        command.arg(&path).args(is_sentinel.then_some("--sentinel")).stdout(Stdio::null());
        let node = Self { child: command.spawn().unwrap(), port, _folder: folder };
        eventually("the server answers", async || (node.ask(&["PING"]) == "PONG").then_some(())).await;
        node
    }

    /// What the server answers to a command.
    pub fn ask(&self, command: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("timeout").args(["2", "redis-cli", "-p", &port]).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until `replicas` replicas have everything that this master has.
    pub async fn replicated(&self, replicas: usize) {
        eventually("the replicas have everything", async || {
            let info = self.ask(&["INFO", "replication"]);
            let offset = info.lines().find_map(|line| line.trim().strip_prefix("master_repl_offset:"))?;
            let state = format!("state=online,offset={offset},");
            (info.matches(&state).count() == replicas).then_some(())
        })
        .await;
    }

    fn id(&self) -> String {
        self.ask(&["CLUSTER", "MYID"])
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A master with two replicas, and three sentinels of which two must agree.
pub struct Watched {
    pub servers: Vec<Node>,
    sentinels: Vec<Node>,
}

impl Watched {
    pub async fn start() -> Self {
        let mut servers = vec![Node::start(&[]).await];
        let master = servers[0].port;
        for _ in 0..2 {
            servers.push(Node::start(&[format!("replicaof 127.0.0.1 {master}")]).await);
        }
        servers[0].replicated(2).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let lines = [
                format!("sentinel monitor mymaster 127.0.0.1 {master} 2"),
                format!("sentinel down-after-milliseconds mymaster {AWAY_MS}"),
                "sentinel failover-timeout mymaster 3000".to_owned(),
            ];
            sentinels.push(Node::start(&lines).await);
        }
        let watched = Self { servers, sentinels };
        eventually("each sentinel knows the others and the replicas", async || {
            let knows = |sentinel: &Node| sentinel.ask(&["INFO", "sentinel"]).contains("slaves=2,sentinels=3");
            watched.sentinels.iter().all(knows).then_some(())
        })
        .await;
        watched
    }

    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let addresses: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("\"127.0.0.1:{}\"", sentinel.port)).collect();
        vec![("redis.url", "redis://mymaster/".to_owned()), ("redis.sentinels", format!("[{}]", addresses.join(", ")))]
    }

    /// The server that takes the writes, once it isn't `old`.
    pub async fn master_after(&self, old: u16) -> usize {
        eventually("another server becomes the master", async || {
            self.servers.iter().position(|node| node.port != old && node.ask(&["ROLE"]).starts_with("master"))
        })
        .await
    }
}

/// A cluster of three masters, each with a replica.
pub struct Cluster {
    pub nodes: Vec<Node>,
}

impl Cluster {
    pub async fn start() -> Self {
        let lines = ["cluster-enabled yes".to_owned(), format!("cluster-node-timeout {AWAY_MS}")];
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(Node::start(&lines).await);
        }
        for (node, range) in nodes.iter().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]]) {
            assert_eq!(node.ask(&["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]), "OK");
        }
        for node in &nodes[1..] {
            let (port, bus) = (node.port.to_string(), (node.port + 1).to_string());
            assert_eq!(nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]), "OK");
        }
        let know_all = |nodes: &[Node]| nodes.iter().all(|node| node.ask(&["CLUSTER", "NODES"]).lines().count() == 6);
        eventually("all nodes know each other", async || know_all(&nodes).then_some(())).await;
        for (at, replica) in nodes[3..].iter().enumerate() {
            let master = nodes[at].id();
            eventually("a replica follows", async || {
                (replica.ask(&["CLUSTER", "REPLICATE", &master]) == "OK").then_some(())
            })
            .await;
        }
        let cluster = Self { nodes };
        eventually("the cluster is complete", async || {
            let complete = |node: &Node| {
                node.ask(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                    && node.ask(&["CLUSTER", "NODES"]).matches("slave").count() == 3
            };
            cluster.nodes.iter().all(complete).then_some(())
        })
        .await;
        for master in &cluster.nodes[..3] {
            master.replicated(1).await;
        }
        cluster
    }

    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let addresses: Vec<String> =
            self.nodes[1..3].iter().map(|node| format!("\"127.0.0.1:{}\"", node.port)).collect();
        vec![
            ("redis.url", format!("redis://127.0.0.1:{}/", self.nodes[0].port)),
            ("redis.cluster_nodes", format!("[{}]", addresses.join(", "))),
            ("redis.prefix", format!("{{optio-{}}}:", uuid::Uuid::now_v7().simple())),
        ]
    }

    /// The index of the master that has the slot of `prefix`, according to node `asked`.
    pub fn owner(&self, asked: usize, prefix: &str) -> (usize, String) {
        let slot = self.nodes[asked].ask(&["CLUSTER", "KEYSLOT", prefix]);
        let number: u32 = slot.parse().unwrap();
        let nodes = self.nodes[asked].ask(&["CLUSTER", "NODES"]);
        let has_it = |line: &&str| {
            line.split(' ').skip(8).any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse().is_ok_and(|first: u32| first <= number)
                    && last.parse().is_ok_and(|last: u32| number <= last)
            })
        };
        let line = nodes.lines().find(has_it).unwrap_or_else(|| panic!("no node has slot {slot}: {nodes}"));
        let at = self.nodes.iter().position(|node| line.contains(&format!(":{}@", node.port))).unwrap();
        (at, slot)
    }

    /// Moves one slot with its keys to another master, as `redis-cli --cluster reshard` does.
    pub async fn migrate(&self, slot: &str, from: usize, to: usize) {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        assert_eq!(target.ask(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source.id()]), "OK");
        assert_eq!(source.ask(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target.id()]), "OK");
        let port = target.port.to_string();
        eventually("all keys of the slot are moved", async || {
            let keys = source.ask(&["CLUSTER", "GETKEYSINSLOT", slot, "100"]);
            for key in keys.lines() {
                source.ask(&["MIGRATE", "127.0.0.1", &port, key, "0", "2000"]);
            }
            keys.is_empty().then_some(())
        })
        .await;
        for node in &self.nodes[..3] {
            node.ask(&["CLUSTER", "SETSLOT", slot, "NODE", &target.id()]);
        }
    }
}
