//! What is done to the system.

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A worker is killed, and another starts.
    Kill,
    /// A worker drains, and another starts.
    Drain,
    /// A worker stands still for longer than its session, and goes on as a zombie.
    Freeze,
    /// Another worker joins; if there are three, one leaves.
    Join,
    /// Redis stops and starts again with its data.
    RedisHalts,
    /// Redis is killed and starts again with its data.
    RedisDies,
    /// Redis stands still for a while.
    RedisFreezes,
    /// Redis answers reads and refuses writes, because a replica is missing.
    RedisReadOnly,
    /// Redis answers reads and refuses writes, because its memory is full.
    RedisFull,
    /// Redis loses all data, and an operator restores it.
    RedisEmpty,
    /// A broker stops and starts again.
    BrokerHalts,
    /// A broker is killed and starts again.
    BrokerDies,
    /// A broker stands still for a while.
    BrokerFreezes,
    /// The brokers refuse writes to the retry topics.
    RetriesRefused,
    /// The topic of events gets another partition.
    PartitionAdded,
    /// A retry topic is deleted and made anew after everything in it was settled.
    TopicAnew,
    /// All workers drain, an operator sets the offsets of the events back, and the workers start again.
    OffsetsReset,
    /// All workers drain, the offsets of both groups expire, and the workers start again.
    OffsetsExpire,
    /// Records come that are no transitions, and some that are strange ones.
    Hostile,
    /// Every endpoint answers 503 for a while.
    Outage,
    /// A webhook is added, gets events, and is deleted.
    Deletion,
    /// The network to a part of the system has a fault for a while.
    Network(Part, Toxic),
}

/// A part of the system that workers reach over a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Kafka,
    Redis,
    Endpoints,
}

/// A fault of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Toxic {
    /// Everything arrives later.
    Latency,
    /// Little arrives in a second.
    Bandwidth,
    /// Connections are closed.
    Cut,
    /// The server's side of the connections is closed.
    HalfClose,
    /// Connections stay open, and nothing arrives any more.
    Freeze,
    /// Connections are reset.
    Reset,
}

/// The faults of processes and parts that work by half.
const OTHERS: [Fault; 21] = [
    Fault::Kill,
    Fault::Drain,
    Fault::Freeze,
    Fault::Join,
    Fault::RedisHalts,
    Fault::RedisDies,
    Fault::RedisFreezes,
    Fault::RedisReadOnly,
    Fault::RedisFull,
    Fault::RedisEmpty,
    Fault::BrokerHalts,
    Fault::BrokerDies,
    Fault::BrokerFreezes,
    Fault::RetriesRefused,
    Fault::PartitionAdded,
    Fault::TopicAnew,
    Fault::OffsetsReset,
    Fault::OffsetsExpire,
    Fault::Hostile,
    Fault::Outage,
    Fault::Deletion,
];

impl Fault {
    /// All faults that are possible with this many brokers: access control lists need a single one.
    pub fn all(brokers: u16) -> Vec<Self> {
        let toxics = [Toxic::Latency, Toxic::Bandwidth, Toxic::Cut, Toxic::HalfClose, Toxic::Freeze, Toxic::Reset];
        let network = [Part::Kafka, Part::Redis, Part::Endpoints]
            .into_iter()
            .flat_map(|part| toxics.map(|toxic| Self::Network(part, toxic)));
        let others = OTHERS.into_iter().filter(|fault| brokers == 1 || *fault != Self::RetriesRefused);
        others.chain(network).collect()
    }

    /// Whether requests that are in flight may be made again after it. Otherwise, only records that an operator lets the
    /// workers read again repeat any.
    pub fn may_repeat(self) -> bool {
        match self {
            // A drain, a rebalance or a refusal of an endpoint repeats nothing that was accepted.
            Self::Drain
            | Self::Join
            | Self::PartitionAdded
            | Self::TopicAnew
            | Self::OffsetsReset
            | Self::OffsetsExpire
            | Self::Hostile
            | Self::Outage
            | Self::Deletion => false,
            Self::Kill
            | Self::Freeze
            | Self::RedisHalts
            | Self::RedisDies
            | Self::RedisFreezes
            | Self::RedisReadOnly
            | Self::RedisFull
            | Self::RedisEmpty
            | Self::BrokerHalts
            | Self::BrokerDies
            | Self::BrokerFreezes
            | Self::RetriesRefused
            | Self::Network(..) => true,
        }
    }
}
