//! The command line: a file for each verb. The exit codes are in `docs/reference.md`, section "Command line".

mod author;
mod dev;
mod emit;
mod listen;
mod replay;
mod run;
mod secrets;
mod sessions;
mod settings;
mod topics;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{BadConfig, Config};
use crate::kafka::admin::TopicsProblem;
use crate::store::StoreError;

const AFTER_HELP: &str = "\
Configuration: built-in defaults (`config show`), then --config FILE, then environment variables
OPTIO_WEBHOOKS__SECTION__KEY, e.g. OPTIO_WEBHOOKS__KAFKA__BROKERS=kafka:9092.

Try it without Kafka or Docker:    optio-webhooks dev
Against a running Kafka and Redis: optio-webhooks run

Exit codes: 0 done, 1 failed at run time, 2 wrong usage, 78 bad configuration.";

/// Delivers Optio's task transitions to webhooks: signed, retried, inspectable.
#[derive(Parser)]
#[command(name = "optio-webhooks", version, max_term_width = 110, after_help = AFTER_HELP)]
struct Arguments {
    /// A TOML file whose values override the built-in defaults.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The format of log lines. RUST_LOG chooses which lines are shown (default: info).
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the worker and the admin server: consume task transitions, send requests, retry, dead-letter, commit.
    Run(run::Run),
    /// Run the whole system on this machine: in-process broker, private Redis, worker, receiver, sample events.
    Dev(dev::Dev),
    /// Compare the existing topics with the required ones, or create those that are missing.
    #[command(subcommand)]
    Topics(topics::Topics),
    /// List, add, show, update, remove and test webhooks.
    #[command(subcommand)]
    Webhooks(webhooks::Webhooks),
    /// Generate a key that seals the webhooks' secrets in Redis, or seal all of them with the first key.
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    /// Write task transitions to the topic of events.
    Emit(emit::Emit),
    /// Receive webhook requests on this machine, verify their signatures and print them.
    Listen(listen::Listen),
    /// Send dead letters again, or send past events to one webhook.
    Replay(replay::Replay),
    /// End sessions of the settings page.
    #[command(subcommand)]
    Sessions(sessions::Sessions),
    /// Show or check the configuration.
    #[command(subcommand)]
    Config(settings::Settings),
}

/// Why a verb failed. Each variant has its own exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The arguments are wrong: 2.
    #[error("{0}")]
    Usage(String),
    /// The configuration can't be used: 78 (`EX_CONFIG` in sysexits.h).
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// The verb failed at run time: 1.
    #[error("{0:#}")]
    Run(#[from] anyhow::Error),
}

impl From<redis::RedisError> for Failure {
    fn from(error: redis::RedisError) -> Self {
        Self::Run(anyhow::Error::new(error).context("redis"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Redis(error) => error.into(),
            StoreError::NoSealingKey(problem) => Self::Config(BadConfig(format!("secret: {problem}"))),
            problem @ (StoreError::Unreadable { .. } | StoreError::Unopened { .. }) => {
                Self::Run(anyhow::Error::new(problem))
            }
        }
    }
}

impl From<TopicsProblem> for Failure {
    fn from(problem: TopicsProblem) -> Self {
        match problem {
            TopicsProblem::Unfit(sentences) => Self::Config(BadConfig(sentences)),
            TopicsProblem::Away(error) => Self::Run(error),
        }
    }
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Run(_) => 1,
            Self::Usage(_) => 2,
            Self::Config(_) => 78,
        })
    }
}

/// Runs the verb of the command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let default = match arguments.verb {
        Verb::Run(_) => "info",
        // The verb prints what happens itself, and at the end the in-process broker goes away before its clients.
        Verb::Dev(_) => "error,librdkafka=off,rdkafka=off",
        _ => "warn",
    };
    start_logging(arguments.log_format, default);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("optio-webhooks: the runtime can't be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run_verb(arguments));
    // Tasks that still wait, such as for a broker that does not answer, must not delay the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("optio-webhooks: {failure}");
            failure.exit_code()
        }
    }
}

async fn run_verb(arguments: Arguments) -> Result<(), Failure> {
    let load = || {
        let config = Config::load(arguments.config.as_deref())?;
        crate::kafka::clients::check_properties(&config)?;
        Ok::<_, BadConfig>(config)
    };
    match arguments.verb {
        Verb::Run(verb) => verb.run(load()?).await,
        Verb::Dev(verb) => verb.run().await,
        Verb::Topics(verb) => verb.run(&load()?).await,
        Verb::Webhooks(verb) => verb.run(&load()?).await,
        Verb::Secrets(secrets::Secrets::GenerateKey { id }) => secrets::Secrets::generate_key(id.as_deref()),
        Verb::Secrets(secrets::Secrets::Rotate) => secrets::Secrets::rotate(&load()?).await,
        Verb::Emit(verb) => verb.run(&load()?).await,
        Verb::Listen(verb) => verb.run().await,
        Verb::Replay(verb) => verb.run(&load()?).await,
        Verb::Sessions(verb) => verb.run(&load()?).await,
        Verb::Config(verb) => verb.run(load),
    }
}

fn start_logging(format: LogFormat, default: &str) {
    use std::io::IsTerminal as _;

    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => logging.init(),
        LogFormat::Json => logging.json().init(),
    }
}

/// Prints a line to standard output. If the reader has gone away (`| head`), the program ends without an error.
fn say(line: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// Prints indented JSON to standard output.
fn say_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    say(&serde_json::to_string_pretty(value).map_err(anyhow::Error::new)?);
    Ok(())
}
