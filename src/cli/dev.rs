//! `dev`: the whole system on embedded defaults, and the story of a few deliveries.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::run::Signals;
use super::{Failure, say};
use crate::config::Config;
use crate::dev::receiver::Receiver;
use crate::dev::redis_server::RedisServer;
use crate::topics::{MESSAGE_MAX, needed};

use story::{SECRET, Story};

mod observation;
mod story;

/// `optio-webhooks dev`
#[derive(clap::Args)]
pub struct Dev {
    /// Exit after the story: with 0 if all came out as it should, else with 1.
    #[arg(long)]
    once: bool,
}

/// Signs in to the page; this system is gone when it ends.
const TOKEN: &str = "dev";
const BROKERS: i32 = 1;
const PARTITIONS: i32 = 4;

/// Short waits, so that the story takes seconds.
fn settings(brokers: String, redis_url: String) -> anyhow::Result<Config> {
    let mut config = Config::built_in();
    config.kafka.brokers = brokers;
    config.redis.url = redis_url;
    config.admin.listen = ([127, 0, 0, 1], 0).into();
    TOKEN.clone_into(&mut config.admin.token);
    config.delivery.allow_http = true;
    config.delivery.allow_networks = vec!["127.0.0.0/8".parse()?];
    config.delivery.attempts_max = 4;
    config.delivery.retry.initial = Duration::from_millis(500);
    config.delivery.retry.multiplier = 2.0;
    config.delivery.retry.max = Duration::from_secs(2);
    config.delivery.timeout = Duration::from_secs(3);
    config.worker.drain_timeout = Duration::from_secs(5);
    config.check()?;
    Ok(config)
}

impl Dev {
    /// Until Ctrl-C, or the story's end with `--once`.
    pub async fn run(self) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let redis_server = tokio::task::spawn_blocking(RedisServer::start).await.context("redis-server")??;
        let broker = MockCluster::new(BROKERS).context("in-process broker")?;
        let config = Arc::new(settings(broker.bootstrap_servers(), redis_server.url.clone())?);
        create_topics(&broker, &config)?;
        let story = tokio::select! {
            story = Story::begin(&config) => story?,
            () = signals.next() => return Ok(()),
        };
        let done = tokio::select! {
            done = story.tell() => done,
            () = signals.next() => { story.end().await; return Ok(()) }
        };
        if !self.once && done.is_ok() {
            say(&invitation(&config, &story.receiver, story.page));
            story.watch(&mut signals).await;
        }
        story.end().await;
        drop(redis_server);
        done.map_err(Failure::Run)
    }
}

fn create_topics(broker: &MockCluster<'_, DefaultProducerContext>, config: &Config) -> anyhow::Result<()> {
    for topic in needed(config, MESSAGE_MAX) {
        broker.create_topic(&topic.name, PARTITIONS, 1).with_context(|| format!("topic {}", topic.name))?;
    }
    Ok(())
}

fn invitation(config: &Config, receiver: &Receiver, page: std::net::SocketAddr) -> String {
    format!(
        "
It stays up until Ctrl-C. In another terminal:

  export OPTIO_WEBHOOKS__KAFKA__BROKERS={} OPTIO_WEBHOOKS__REDIS__URL={}
  export OPTIO_WEBHOOKS__DELIVERY__ALLOW_HTTP=true OPTIO_WEBHOOKS__DELIVERY__ALLOW_NETWORKS='[\"127.0.0.0/8\"]'
  optio-webhooks webhooks list
  optio-webhooks emit --event task.completed
  optio-webhooks listen --secret s3cret

The receiver is http://{}/, its secret {SECRET}. The settings page is http://{page}/, its token {TOKEN}.
",
        config.kafka.brokers, config.redis.url, receiver.address
    )
}
