//! The floor: a bare consumer that posts the same signed bodies with the same client, without bookkeeping.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::LazyLock;

use optio_webhooks::clock::now_ms;
use optio_webhooks::config::Config;
use optio_webhooks::delivery::DeliveryId;
use optio_webhooks::event::{Decoded, Event, Limits, decode};
use optio_webhooks::kafka::clients;
use optio_webhooks::position::{RecordPosition, TimestampMs};
use optio_webhooks::signature::SigningSecret;
use rdkafka::Message as _;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::process::Process;
use super::world::SECRET;

/// Starts the bare consumer on the topic of `config`. It posts to as many endpoints as there are `webhooks`.
pub fn start(config: &Config, at: SocketAddr, webhooks: usize) -> Process {
    let arguments = [config.kafka.brokers.clone(), config.kafka.topic.clone(), at.to_string(), webhooks.to_string()];
    Process::role("floor", &arguments)
}

/// The role `floor`: the process that `start` starts.
pub fn run(arguments: &[String]) {
    let [brokers, topic, at, webhooks] = arguments else { panic!("four arguments") };
    let settings = [
        ("kafka.brokers", brokers.as_str()),
        ("kafka.topic", topic),
        ("kafka.properties.session_timeout_ms", "6000"),
        ("delivery.allow_http", "true"),
        ("delivery.allow_networks", r#"["127.0.0.0/8"]"#),
    ];
    let config = Config::with(settings).expect("the settings are valid");
    let urls: Vec<String> = (0..webhooks.parse::<usize>().expect("webhooks is a number"))
        .map(|number| format!("http://{at}/{number}"))
        .collect();
    tokio::runtime::Runtime::new().expect("the runtime starts").block_on(post_all(&config, &urls));
}

async fn post_all(config: &Config, urls: &[String]) {
    let consumer: StreamConsumer =
        clients::consumer(config, &format!("floor-{}", config.kafka.topic)).create().expect("the consumer starts");
    consumer.subscribe(&[&config.kafka.topic]).expect("the subscription is valid");
    let client = client(&config.delivery).expect("the client can be built");
    // The worker has the same limit for this number of endpoints.
    let topic: Arc<str> = config.kafka.topic.as_str().into();
    let permits = Arc::new(Semaphore::new(config.delivery.endpoint_in_flight_max * urls.len()));
    loop {
        let Ok(record) = consumer.recv().await else { continue };
        let at = RecordPosition { topic: topic.clone(), partition: record.partition(), offset: record.offset() };
        let written = TimestampMs(0);
        let Ok(Decoded::Event(event)) = decode(record.payload(), &at, written, Limits::new(config)) else {
            panic!("a sample is a valid event")
        };
        let event = Arc::new(event);
        for url in urls {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            let request = request(&client, url, &event);
            tokio::spawn(async move {
                let answer = request.send().await.expect("the receiver runs");
                assert!(answer.status().is_success());
                answer.bytes().await.expect("the answer has a body");
                drop(permit);
            });
        }
    }
}

/// A client as a program without special needs would configure it.
fn client(delivery: &optio_webhooks::config::DeliverySettings) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().timeout(delivery.timeout).tcp_nodelay(true).build()
}

static KEY: LazyLock<SigningSecret> = LazyLock::new(|| SigningSecret::stored(SECRET.into()));

fn request(client: &reqwest::Client, url: &str, event: &Event) -> reqwest::RequestBuilder {
    let id = DeliveryId(Uuid::new_v5(&Uuid::NAMESPACE_URL, event.id.as_bytes()));
    let timestamp_s = now_ms() / 1_000;
    client
        .post(url)
        .header("content-type", "application/json")
        .header("x-optio-event", event.event_type.as_str())
        .header("x-optio-delivery", id.to_string())
        .header("x-optio-attempt", "1")
        .header("x-optio-signature", KEY.optio(&event.body).expect("it is a shared secret"))
        .header("webhook-id", id.to_string())
        .header("webhook-timestamp", timestamp_s.to_string())
        .header("webhook-signature", KEY.standard(id.0, timestamp_s, &event.body))
        .body(event.body.clone())
}
