//! The scripted broker, which takes the writes of the worker, and the producer of the events.

use std::time::Duration;

use rand::RngExt as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, OwnedHeaders};
use rdkafka::types::RDKafkaErrorCode;
use uuid::Uuid;

use super::outside::{PARTITIONS, Stored, World, event_id};
use crate::clock::now_ms;
use crate::event::{EventType, sample};
use crate::pipeline::hand_off::Script;

/// The tasks whose events are written.
const TASKS: u128 = 4;

/// Takes the writes of the worker.
pub fn script(world: &World) -> Script {
    let world = world.clone();
    std::sync::Arc::new(move |topic, _key, value, headers| {
        let (world, topic) = (world.clone(), topic.to_owned());
        let (value, headers) = (value.unwrap_or_default().to_vec(), headers.clone());
        Box::pin(async move { write(&world, &topic, value, headers).await })
    })
}

async fn write(world: &World, topic: &str, value: Vec<u8>, headers: OwnedHeaders) -> Result<(), KafkaError> {
    world.pause(Duration::from_millis(20)).await;
    if world.happens(5) {
        return Err(KafkaError::MessageProduction(RDKafkaErrorCode::TopicAuthorizationFailed));
    }
    world.with(|outside| {
        let delivery = headers.iter().find(|header| header.key == "optio-delivery-id").and_then(|header| header.value);
        let delivery = delivery.map(|id| String::from_utf8_lossy(id).into_owned());
        let number = outside.random.random_range(0..PARTITIONS);
        outside.append(topic, number, Stored { value, headers, timestamp_ms: now_ms(), delivery });
    });
    // The process may die between the write and its acknowledgement.
    world.pause(Duration::from_millis(20)).await;
    if world.happens(2) {
        // An acknowledgement that comes late.
        world.pause(Duration::from_secs(3)).await;
    }
    Ok(())
}

/// Writes the events that are still to be written.
pub async fn produce_events(world: World) {
    loop {
        world.pause(Duration::from_millis(200)).await;
        let is_over = world.with(|outside| {
            let Some(left) = outside.to_write.checked_sub(1) else { return true };
            outside.to_write = left;
            let task = outside.random.random_range(0..TASKS);
            let kinds = [EventType::TaskCompleted, EventType::TaskFailed, EventType::TaskPrOpened];
            let kind = kinds[outside.random.random_range(0..kinds.len())];
            let mut value = sample::transition(kind, Uuid::from_u128(task), "simulated", now_ms());
            value["id"] = format!("event-{left}").into();
            let record = Stored {
                value: value.to_string().into_bytes(),
                headers: OwnedHeaders::new(),
                timestamp_ms: now_ms(),
                delivery: None,
            };
            outside.events.push(event_id(&record));
            let topic = outside.names.events().to_owned();
            outside.append(&topic, (task % PARTITIONS as u128) as i32, record);
            false
        });
        if is_over {
            return;
        }
    }
}
