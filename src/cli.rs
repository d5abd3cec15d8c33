//! The command line: a file for each verb. The exit codes are in `docs/reference.md`, section "Command line".

mod api;
mod author;
mod dev;
mod emit;
mod health;
mod listen;
mod logging;
mod output;
mod replay;
mod run;
mod secret_input;
mod secrets;
mod sessions;
mod settings;
mod shell;
mod top;
mod topics;
mod webhooks;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{BadConfig, Config};
use crate::kafka::admin::TopicsProblem;
use crate::printable::escaped;
use crate::store::{StoreError, unaudited};
use logging::LogFormat;
use output::{complain, say, say_json};

const AFTER_HELP: &str = "\
Configuration: built-in defaults (`config show --default`), then --config FILE, then environment variables
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
    /// The format of log lines. RUST_LOG chooses which lines are shown (default: info for `run`, error for `dev`, warn for other commands).
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    verb: Verb,
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
    /// Manage webhooks: list, add, show, update, remove, test, import, export, apply, init.
    #[command(subcommand)]
    Webhooks(webhooks::Webhooks),
    /// Do everything that the settings page does, over the API of a server or on Kafka and Redis: deliveries, redelivery, rotation, dead letters, status.
    Api(Box<api::Api>),
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
    /// Watch the workers, the lag, blocked partitions and endpoints in this terminal.
    Top(top::Top),
    /// Ask the process on this machine whether it is well. Exits with 1 if it isn't.
    Health(health::Health),
    /// Print the completions for a shell.
    Completions(shell::Completions),
    /// Write the manual pages to a folder.
    Man(shell::Man),
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
        match unaudited(&error) {
            Some(sentence) => Self::Run(anyhow::anyhow!(sentence)),
            None => Self::Run(anyhow::Error::new(error).context("redis")),
        }
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
    fn exit_code(&self) -> i32 {
        match self {
            Self::Run(_) => 1,
            Self::Usage(_) => 2,
            Self::Config(_) => 78,
        }
    }
}

/// Runs the verb of the command line.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(error),
    };
    let default = match arguments.verb {
        Verb::Run(_) => "info",
        // The verb prints what happens itself, and at the end the in-process broker goes away before its clients.
        Verb::Dev(_) => "error,librdkafka=off,rdkafka=off",
        _ => "warn",
    };
    logging::start(arguments.log_format, default);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the runtime can't be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run_verb(arguments));
    // Tasks that still wait, such as for a broker that does not answer, must not delay the exit.
    runtime.shutdown_background();
    let code = result.map_or_else(
        |failure| {
            complain(&failure.to_string());
            failure.exit_code()
        },
        |()| 0,
    );
    output::leave(code)
}

/// Prints the help that was asked for, or what is wrong with the arguments.
fn explain(error: clap::Error) -> ExitCode {
    if error.exit_code() == 0 {
        // The help has no text from outside. If nobody reads it, that is no failure.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    // clap quotes arguments as they are, with their line breaks. Escaped arguments are wrong for the same reason, so
    // they give the same explanation without any.
    let arguments = std::env::args_os().map(|argument| escaped(&argument.to_string_lossy()).into_owned());
    let error = Arguments::try_parse_from(arguments).err().unwrap_or(error);
    output::usage(&error.render().to_string());
    ExitCode::from(2)
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
        Verb::Api(verb) => verb.run(&load()?).await,
        Verb::Secrets(secrets::Secrets::GenerateKey { id }) => secrets::Secrets::generate_key(id.as_deref()),
        Verb::Secrets(secrets::Secrets::Rotate) => secrets::Secrets::rotate(&load()?).await,
        Verb::Emit(verb) => verb.run(&load()?).await,
        Verb::Listen(verb) => verb.run(load).await,
        Verb::Replay(verb) => verb.run(&load()?).await,
        Verb::Sessions(verb) => verb.run(&load()?).await,
        Verb::Config(verb) => verb.run(load),
        Verb::Health(verb) => verb.run(&load()?),
        Verb::Top(verb) => verb.run(&load()?).await,
        Verb::Completions(verb) => verb.run(),
        Verb::Man(verb) => verb.run(),
    }
}
