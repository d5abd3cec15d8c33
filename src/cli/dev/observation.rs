//! What the demo shows: requests, retries and dead letters, seen from outside the worker.

use crate::record::header_names as names;
use anyhow::Context as _;
use rdkafka::Message as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::dev::receiver::Arrival;
use crate::kafka::logging::Logging;
use crate::kafka::{clients, headers};
use crate::topics::Names;

/// Something that happened to a delivery.
pub enum Observation {
    /// A request arrived at the receiver.
    Arrived(Arrival),
    /// A delivery was written to a retry tier.
    Retry { tier: u32, delivery: String, wait_ms: i64, error: String },
    /// A delivery was dead-lettered.
    Dead { delivery: String, reason: String, detail: String },
}

impl Observation {
    /// A line for people.
    pub fn line(&self) -> String {
        match self {
            Self::Arrived(arrival) => format!("  attempt    {}", arrival.line()),
            Self::Retry { tier, delivery, wait_ms, error } => {
                format!("  retry      after attempt {tier}: delivery {delivery} ({error}) waits {wait_ms} ms")
            }
            Self::Dead { delivery, reason, detail } => format!("  dead       delivery {delivery}: {reason}, {detail}"),
        }
    }
}

/// Sends an observation of each record in the retry tiers and the dead-letter topic. It reads them beside the worker,
/// as any Kafka tool could.
pub fn follow(config: &Config, names: &Names, observations: mpsc::Sender<Observation>) -> anyhow::Result<()> {
    let consumer: StreamConsumer<Logging> =
        clients::consumer(config, "dev-observer").create_with_context(Logging).context("kafka consumer")?;
    let mut topics: Vec<String> = (1..config.delivery.attempts_max).map(|tier| names.retry(tier)).collect();
    topics.push(names.dead_letters());
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
    let names = names.clone();
    tokio::spawn(async move {
        loop {
            let Ok(record) = consumer.recv().await else { continue };
            let header = |name: &str| headers::last(record.headers(), name).unwrap_or_default().to_owned();
            let delivery = header(names::DELIVERY_ID);
            let observation = match names.tier_of(record.topic()) {
                Some(tier) => Observation::Retry {
                    tier,
                    delivery,
                    wait_ms: header(names::DUE_AT).parse::<i64>().unwrap_or(0)
                        - record.timestamp().to_millis().unwrap_or(0),
                    error: format!("{} {}", header(names::LAST_ERROR), header(names::LAST_STATUS)).trim().to_owned(),
                },
                None => Observation::Dead {
                    delivery,
                    reason: header(names::DEAD_REASON),
                    detail: header(names::DEAD_DETAIL),
                },
            };
            if observations.send(observation).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}
