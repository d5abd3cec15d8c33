//! Asks the nodes of a cluster which of them has this program's keys.
//!
//! The prefix of the keys has a hash tag, so all keys lie in one slot: scripts and transactions work as on a single
//! server, and one connection is enough. Source: the Redis Cluster specification, and the command `CLUSTER SLOTS`.

use std::sync::Mutex;

use futures_util::future::{BoxFuture, FutureExt as _, select_ok};
use redis::{ConnectionAddr, RedisResult, Value};

use super::{Server, unknown};
use crate::config;
use crate::config::redis_servers::host_and_port;

/// The largest number of nodes that are remembered.
const NODES_MAX: usize = 100;

type Node = (String, u16);

pub(super) struct Cluster {
    server: Server,
    prefix: String,
    configured: Vec<Node>,
    /// The nodes that the last answer named. They help when all configured ones are away.
    learned: Mutex<Vec<Node>>,
}

impl Cluster {
    pub(super) fn new(server: Server, settings: &config::Redis) -> Self {
        let entries = settings.cluster_nodes.iter().filter_map(|entry| host_and_port(entry));
        let mut configured: Vec<Node> = entries.map(|(host, port)| (host.to_owned(), port)).collect();
        if let ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } = server.info.addr() {
            configured.insert(0, (host.clone(), *port));
        }
        Self { server, prefix: settings.prefix.clone(), configured, learned: Mutex::default() }
    }

    /// The address of the node that has the keys. All known nodes are asked at the same time, and the first one that knows
    /// counts, so that a node that hangs delays nothing.
    pub(super) async fn owner(&self) -> RedisResult<ConnectionAddr> {
        let mut nodes = self.configured.clone();
        nodes.extend(self.learned().iter().cloned());
        nodes.sort_unstable();
        nodes.dedup();
        let questions: Vec<BoxFuture<'_, _>> = nodes.into_iter().map(|node| self.ask(node).boxed()).collect();
        let answer = select_ok(questions).await;
        let (((host, port), ranges), _) =
            answer.map_err(|error| unknown(&format!("no node of the cluster knows: {error}")))?;
        *self.learned() = ranges.iter().flat_map(|range| range.nodes.iter().cloned()).take(NODES_MAX).collect();
        Ok(self.server.address(&host, port))
    }

    /// Asks one node for the master that has the keys, and for the nodes of all slots. A node that was cut off, or that
    /// joined no cluster yet, doesn't know.
    async fn ask(&self, node: Node) -> RedisResult<(Node, Vec<Range>)> {
        let client = self.server.client(self.server.address(&node.0, node.1))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&self.server.limits()).await?;
        let mut questions = redis::pipe();
        questions.cmd("CLUSTER").arg("KEYSLOT").arg(&self.prefix).cmd("CLUSTER").arg("SLOTS");
        let (slot, answer): (u16, Vec<Value>) = questions.query_async(&mut connection).await?;
        // An ACL may forbid this question.
        let state = redis::cmd("CLUSTER").arg("INFO").query_async::<String>(&mut connection).await;
        if state.is_ok_and(|state| state.contains("cluster_state:fail")) {
            return Err(unknown(&format!("{}:{} says that the cluster is down", node.0, node.1)));
        }
        let ranges: Vec<Range> = answer.iter().filter_map(|range| read(range, &node.0)).collect();
        let range = ranges.iter().find(|range| range.first <= slot && slot <= range.last);
        let master = range.and_then(|range| range.nodes.first()).cloned();
        let master = master.ok_or_else(|| unknown(&format!("no node of the cluster has slot {slot}")))?;
        Ok((master, ranges))
    }

    fn learned(&self) -> std::sync::MutexGuard<'_, Vec<Node>> {
        self.learned.lock().expect("nothing panics while it holds the nodes")
    }
}

/// Slots that the same nodes have. The first node is their master.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    nodes: Vec<Node>,
}

/// Reads one entry of `CLUSTER SLOTS`. A node that doesn't know its own host means the host that was `asked`.
fn read(entry: &Value, asked: &str) -> Option<Range> {
    let Value::Array(parts) = entry else { return None };
    let slot = |at: usize| match parts.get(at) {
        Some(Value::Int(slot)) => u16::try_from(*slot).ok(),
        _ => None,
    };
    let node = |part: &Value| {
        let Value::Array(part) = part else { return None };
        let host = match part.first()? {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            Value::Nil => "",
            _ => return None,
        };
        let Value::Int(port) = part.get(1)? else { return None };
        let host = if matches!(host, "" | "?") { asked } else { host };
        Some((host.to_owned(), u16::try_from(*port).ok()?))
    };
    // If the master can't be read, another node must not take its place.
    let master = node(parts.get(2)?)?;
    let replicas = parts[3..].iter().filter_map(node);
    Some(Range { first: slot(0)?, last: slot(1)?, nodes: std::iter::once(master).chain(replicas).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Option<Range> {
        read(&redis::parse_redis_value(text.as_bytes()).unwrap(), "asked")
    }

    #[test]
    fn the_first_node_is_the_master_and_an_unknown_host_is_the_asked_one() {
        let range =
            entry("*4\r\n:0\r\n:5460\r\n*3\r\n$1\r\na\r\n:7000\r\n$1\r\nx\r\n*2\r\n$1\r\nb\r\n:7001\r\n").unwrap();
        assert_eq!((range.first, range.last), (0, 5460));
        assert_eq!(range.nodes, [("a".to_owned(), 7000), ("b".to_owned(), 7001)]);
        for unknown in ["$-1\r\n", "$0\r\n\r\n", "$1\r\n?\r\n"] {
            let range = entry(&format!("*3\r\n:1\r\n:2\r\n*2\r\n{unknown}:7000\r\n")).unwrap();
            assert_eq!(range.nodes, [("asked".to_owned(), 7000)]);
        }
    }

    #[test]
    fn an_entry_of_another_form_is_left_out() {
        for text in [
            "+OK\r\n",
            "*0\r\n",
            "*2\r\n:1\r\n:2\r\n",
            "*3\r\n:-1\r\n:2\r\n*2\r\n$1\r\na\r\n:1\r\n",
            "*3\r\n:1\r\n:2\r\n*2\r\n:1\r\n:1\r\n",
            "*3\r\n:1\r\n:2\r\n*2\r\n$1\r\na\r\n:70000\r\n",
        ] {
            assert_eq!(entry(text), None, "{text}");
        }
    }
}
