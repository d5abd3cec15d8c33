//! `dev`: runs the whole system on this machine, and shows a few deliveries from start to end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::Failure;
use super::output::say_lines;
use super::run::Signals;
use crate::config::Config;
use crate::dev::receiver::Receiver;
use crate::dev::redis_server::RedisServer;
use crate::topics::{MESSAGE_MAX, needed};

use crate::secret::keyring::generate_key;
use demo::{Demo, SECRET};

mod demo;
mod observation;

/// `optio-webhooks dev`
#[derive(clap::Args)]
pub struct Dev {
    /// Exit after the sample events: with 0 if every delivery went as expected, else with 1.
    #[arg(long)]
    once: bool,
}

/// The admin token. It need not be secret: the server listens on this machine only, and ends with this process.
const TOKEN: &str = "dev";
const BROKERS: i32 = 1;
const PARTITIONS: i32 = 4;

/// The configuration of the demo. Its waits are short, so that the demo takes seconds.
fn settings(brokers: String, redis_url: String) -> anyhow::Result<Config> {
    let mut config = Config::built_in();
    config.kafka.brokers = brokers;
    config.redis.url = redis_url.into();
    config.admin.listen = ([127, 0, 0, 1], 0).into();
    config.secrets.keys = generate_key("dev");
    config.delivery.allow_http = true;
    config.delivery.allow_networks = vec!["127.0.0.0/8".parse()?];
    config.delivery.attempts_max = 4;
    config.delivery.retry.initial = Duration::from_millis(500);
    config.delivery.retry.multiplier = 2.0;
    config.delivery.retry.max = Duration::from_secs(2);
    config.delivery.timeout = Duration::from_secs(3);
    config.worker.drain_timeout = Duration::from_secs(5);
    config.check()?;
    // Nobody else reaches the page, so the token may be shorter than others must be.
    config.admin.token = TOKEN.into();
    Ok(config)
}

impl Dev {
    /// Runs until Ctrl-C; with `--once`, until the sample events are done.
    pub async fn run(self) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let redis_server = tokio::task::spawn_blocking(RedisServer::start).await.context("redis-server")??;
        let broker = MockCluster::new(BROKERS).context("in-process broker")?;
        let config = Arc::new(settings(broker.bootstrap_servers(), redis_server.url.clone())?);
        create_topics(&broker, &config)?;
        let demo = tokio::select! {
            demo = Demo::start(&config) => demo?,
            () = signals.next() => return Ok(()),
        };
        let outcome = tokio::select! {
            outcome = demo.run() => outcome,
            () = signals.next() => { demo.end().await; return Ok(()) }
        };
        if !self.once && outcome.is_ok() {
            demo.show_more().await?;
            say_lines(&next_steps(&config, &demo.receiver, demo.page));
            demo.watch(&mut signals).await;
        }
        demo.end().await;
        drop(redis_server);
        outcome.map_err(Failure::Run)
    }
}

fn create_topics(broker: &MockCluster<'_, DefaultProducerContext>, config: &Config) -> anyhow::Result<()> {
    for topic in needed(config, MESSAGE_MAX) {
        broker.create_topic(&topic.name, PARTITIONS, 1).with_context(|| format!("topic {}", topic.name))?;
    }
    Ok(())
}

/// What to try in another terminal.
fn next_steps(config: &Config, receiver: &Receiver, page: std::net::SocketAddr) -> String {
    // The program need not be in the PATH, so the commands name it as it was started.
    let path = std::env::current_exe().ok().and_then(|path| shlex::try_quote(path.to_str()?).ok().map(Cow::into_owned));
    let program = path.unwrap_or_else(|| "optio-webhooks".to_owned());
    format!(
        "
It stays up until Ctrl-C. In another terminal:

  export OPTIO_WEBHOOKS__KAFKA__BROKERS={} OPTIO_WEBHOOKS__REDIS__URL={}
  export OPTIO_WEBHOOKS__SECRETS__KEYS={}
  export OPTIO_WEBHOOKS__DELIVERY__ALLOW_HTTP=true OPTIO_WEBHOOKS__DELIVERY__ALLOW_NETWORKS='[\"127.0.0.0/8\"]'
  {program} webhooks list
  {program} emit --event task.completed
  OPTIO_WEBHOOKS_LISTEN_SECRET={SECRET} {program} listen

The receiver is http://{}/, and its secret is {SECRET}. The settings page is http://{page}/, and its token is {TOKEN}.
",
        config.kafka.brokers,
        config.redis.url.expose(),
        config.secrets.keys.expose(),
        receiver.address
    )
}
