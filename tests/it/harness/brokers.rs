//! One Kafka broker or three, each with a listener behind a proxy.

use super::proxy::Proxy;
use super::service::{Service, free_ports};

/// The ports of one broker: the direct listener, the controller, the listener behind the proxy, and one that is left free.
const PORTS_EACH: u16 = 4;
/// The 16 bytes of a cluster's id in the URL-safe Base64 of the brokers.
const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// The settings with which access control lists are enforced. Everything is allowed until a test creates the first one.
const AUTHORIZER: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true";

/// A cluster whose topics have a replica on every broker. One broker alone enforces access control lists: several could not
/// elect a controller before they have read the lists.
pub struct Brokers {
    pub brokers: Vec<Service>,
    /// The proxies in front of the brokers, in their order.
    pub proxies: Vec<Proxy>,
    /// The addresses without a proxy.
    pub direct: String,
    /// The addresses behind the proxies.
    pub proxied: String,
}

impl Brokers {
    pub async fn start(count: u16) -> Self {
        let first = free_ports(count * PORTS_EACH);
        let port = |broker: u16| first + broker * PORTS_EACH;
        let mut proxies = Vec::new();
        for broker in 0..count {
            proxies.push(Proxy::to(&format!("127.0.0.1:{}", port(broker) + 2)).await);
        }
        let list = |addresses: Vec<String>| addresses.join(",");
        let voters = (0..count).map(|broker| format!("{}@127.0.0.1:{}", broker + 1, port(broker) + 1));
        let voters = list(voters.collect());
        let settings = |broker: u16| {
            let (id, port, proxied) = (broker + 1, port(broker), proxies[usize::from(broker)].address);
            let in_sync_min = count / 2 + 1;
            let authorizer = if count == 1 { AUTHORIZER } else { "" };
            format!(
                "node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{},CONTROLLER://127.0.0.1:{}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://{proxied}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
default.replication.factor={count}
offsets.topic.replication.factor={count}
min.insync.replicas={in_sync_min}
broker.session.timeout.ms=3000
{authorizer}",
                port + 2,
                port + 1,
            )
        };
        // A broker answers once most controllers are there, so all start together.
        let brokers = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let starting: Vec<_> = (0..count)
                    .map(|broker| {
                        let variables = vec![
                            ("KAFKA_SETTINGS", settings(broker)),
                            ("KAFKA_CLUSTER_ID", CLUSTER_ID.to_owned()),
                            ("KAFKA_HEAP", "320m".to_owned()),
                        ];
                        scope.spawn(move || Service::start_at("kafka", port(broker), variables))
                    })
                    .collect();
                starting.into_iter().map(|broker| broker.join().unwrap()).collect::<Vec<_>>()
            })
        });
        Self {
            direct: list(brokers.iter().map(|broker| broker.address.clone()).collect()),
            proxied: list(proxies.iter().map(|proxy| proxy.address.to_string()).collect()),
            brokers,
            proxies,
        }
    }
}
