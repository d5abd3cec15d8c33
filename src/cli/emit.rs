//! `emit`: writes task transitions to the topic of events.

mod validate;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::TypedValueParser as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use serde_json::{Deserializer, Value};
use uuid::Uuid;

use super::output::{note, say_json};
use super::{Failure, say};
use crate::clock::now_ms;
use crate::config::Config;
use crate::event::{Decoded, EventType, Limits, decode, sample, schema};
use crate::kafka::clients;
use crate::kafka::logging::Logging;
use crate::position::{RecordPosition, TimestampMs};

/// `optio-webhooks emit`
#[derive(clap::Args)]
#[command(after_help = "Examples:
  optio-webhooks emit --event task.completed
  optio-webhooks emit --event task.failed --title 'Fix login' --count 100
  optio-webhooks emit --file transitions.ndjson
  cat transition.json | optio-webhooks emit --file -
  optio-webhooks emit --validate transitions.ndjson
  optio-webhooks emit --schema > task-event.schema.json")]
pub struct Emit {
    /// Write a sample transition that leads to this event.
    #[arg(long, required_unless_present_any = ["file", "validate", "schema"], conflicts_with = "file", value_parser = of_task())]
    event: Option<EventType>,
    /// The id of the task; a new one by default.
    #[arg(long, requires = "event")]
    task_id: Option<Uuid>,
    /// The title of the task.
    #[arg(long, requires = "event", default_value = "Fix login redirect after checkout")]
    title: String,
    /// The number of transitions. Each is of a new task unless --task-id is given.
    #[arg(long, requires = "event", default_value_t = 1)]
    count: u32,
    /// Write the transitions in this file instead: one JSON object after another. "-" reads standard input.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Write the file's objects even if they can't be read as transitions.
    #[arg(long, requires = "file")]
    unchecked: bool,
    /// Write nothing: say of each message in this file what a worker would make of it, and which fields would not
    /// arrive. "-" reads standard input. Needs no broker. Exits with 1 if a message isn't valid.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["event", "file", "schema"])]
    validate: Option<PathBuf>,
    /// Write nothing: print the JSON Schema (2020-12) of a message.
    #[arg(long, conflicts_with_all = ["event", "file"])]
    schema: bool,
}

/// The time that the broker has to acknowledge a record, in milliseconds.
const ACKNOWLEDGE_MAX_MS: &str = "15000";
/// The number of records that are sent before the first acknowledgement is awaited.
const WINDOW: usize = 1_000;

/// Reads an event type of tasks. Workers make the operational events themselves.
fn of_task() -> impl clap::builder::TypedValueParser<Value = EventType> {
    let names = clap::builder::PossibleValuesParser::new(EventType::TASKS.map(EventType::as_str));
    names.map(|name| EventType::named(&name).expect("it is one of the names"))
}

impl Emit {
    /// Writes all transitions.
    ///
    /// # Errors
    /// A transition can't be read, and nothing was written; or the broker does not acknowledge one in time.
    pub async fn run(self, config: &Config) -> Result<(), Failure> {
        if self.schema {
            return say_json(&schema::schema());
        }
        if let Some(path) = &self.validate {
            return validate::run(path, config);
        }
        let transitions = match &self.file {
            Some(_) => self.read_file(config)?,
            None => self.samples(),
        };
        let producer: FutureProducer<Logging> = clients::producer(config)
            .set("message.timeout.ms", ACKNOWLEDGE_MAX_MS)
            .create_with_context(Logging)
            .context("kafka producer")?;
        let quiet = transitions.len() > 20;
        for window in transitions.chunks(WINDOW) {
            let mut sent = Vec::with_capacity(window.len());
            for transition in window {
                let (key, value) = (key(transition), transition.to_string());
                let record = FutureRecord::to(&config.kafka.topic).key(&key).payload(&value);
                let acknowledged = producer.send_result(record).map_err(|(error, _)| anyhow::Error::new(error))?;
                sent.push((key, acknowledged));
            }
            for (key, acknowledged) in sent {
                let at = acknowledged
                    .await
                    .context("the producer ended")?
                    .map_err(|(error, _)| anyhow::Error::new(error))
                    .with_context(|| {
                        format!("kafka.brokers = {} did not acknowledge it within 15 s", config.kafka.brokers)
                    })?;
                if !quiet {
                    say(&format!(
                        "task {key} written to {} partition {} offset {}",
                        config.kafka.topic, at.partition, at.offset
                    ));
                }
            }
        }
        if quiet {
            say(&format!("{} transitions written to {}", transitions.len(), config.kafka.topic));
        }
        rdkafka::producer::Producer::flush(&producer, Timeout::After(std::time::Duration::from_secs(1)))
            .map_err(anyhow::Error::new)?;
        Ok(())
    }

    fn samples(&self) -> Vec<Value> {
        let event = self.event.expect("clap requires --event without --file");
        let task = || self.task_id.unwrap_or_else(Uuid::now_v7);
        (0..self.count).map(|_| sample::transition(event, task(), &self.title, now_ms())).collect()
    }

    fn read_file(&self, config: &Config) -> Result<Vec<Value>, Failure> {
        let text = read_input(self.file.as_ref().expect("called with --file"))?;
        let mut transitions = Vec::new();
        for (index, value) in Deserializer::from_str(&text).into_iter::<Value>().enumerate() {
            let number = index + 1;
            let unreadable =
                |why: String| Failure::Usage(format!("transition {number} in the input: {why}; nothing was written"));
            let value = value.map_err(|error| unreadable(error.to_string()))?;
            let at = RecordPosition { topic: config.kafka.topic.as_str().into(), partition: 0, offset: 0 };
            let decoded = decode(Some(value.to_string().as_bytes()), &at, TimestampMs(now_ms()), Limits::new(config));
            match decoded {
                Err(error) if !self.unchecked => return Err(unreadable(error.to_string())),
                Ok(Decoded::Nothing(_)) => {
                    note(&format!("transition {number}: its state is no event, so no webhook gets it"));
                }
                _ => {}
            }
            transitions.push(value);
        }
        if transitions.is_empty() {
            return Err(Failure::Usage("the input has no transitions".to_owned()));
        }
        Ok(transitions)
    }
}

/// Reads a file, or standard input if the path is `-`.
pub(super) fn read_input(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    }
    Ok(text)
}

/// The record's key: transitions of one task share a partition, so they keep their order.
fn key(transition: &Value) -> String {
    transition["taskId"].as_str().unwrap_or_default().to_owned()
}
