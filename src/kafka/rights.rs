//! The rights that each kind of process needs in Kafka, compared with what the broker allows (`topics check --acls`).
//! `docs/operations.md`, section "Access to Kafka", lists the same rights as commands.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::admin::AdminClient;
use rdkafka::bindings::rd_kafka_AclOperation_t as Native;

use super::describe::rights::{Allowed, on_groups, on_topics};
use super::{clients, logging::Logging, refusal};
use crate::config::Config;
use crate::topics::Names;

/// The time that the broker has for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// An operation that a rule may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Describe,
    DescribeConfigs,
}

impl Operation {
    /// librdkafka's operation, if this program needs it anywhere.
    #[must_use]
    pub fn of(operation: Native) -> Option<Self> {
        match operation {
            Native::RD_KAFKA_ACL_OPERATION_READ => Some(Self::Read),
            Native::RD_KAFKA_ACL_OPERATION_WRITE => Some(Self::Write),
            Native::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Self::Describe),
            Native::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Self::DescribeConfigs),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    /// The name that `kafka-acls.sh` takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Describe => "Describe",
            Self::DescribeConfigs => "DescribeConfigs",
        })
    }
}

/// A kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// `run`: a worker with the admin server.
    Run,
    /// `run --only worker`.
    Worker,
    /// `run --only admin`, `replay` and `topics check`.
    Admin,
    /// What writes to the topic of events.
    Producer,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Topic,
    Group,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Topic => "topic",
            Self::Group => "group",
        })
    }
}

/// The operations that a process needs on one topic or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub kind: Kind,
    pub name: String,
    pub operations: Vec<Operation>,
}

/// The rights on one topic or group, compared with what the broker allows.
#[derive(Debug)]
pub struct Compared {
    pub needed: Needed,
    /// The operations that the broker doesn't allow, or the reason why they are not known.
    pub missing: Result<Vec<Operation>, String>,
}

impl Compared {
    /// Whether the broker lets this process see the topic or group at all. Any right includes that one.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        self.missing.as_ref().map_or(true, |missing| missing.len() < self.needed.operations.len())
    }
}

/// The rights that a process of this kind needs.
#[must_use]
pub fn needed(config: &Config, role: Role) -> Vec<Needed> {
    use Operation::{Describe, DescribeConfigs, Read, Write};
    let names = Names::new(config);
    let mut all: Vec<Needed> = Vec::new();
    let mut add = |kind, name: String, operations: &[Operation]| {
        let at = all.iter().position(|one| one.kind == kind && one.name == name).unwrap_or_else(|| {
            all.push(Needed { kind, name, operations: Vec::new() });
            all.len() - 1
        });
        let known = &mut all[at].operations;
        known.extend(operations.iter().filter(|one| !known.contains(one)).copied().collect::<Vec<_>>());
    };
    let tiers = || (1..config.delivery.attempts_max).map(|tier| names.retry(tier));
    let events = || names.events().to_owned();
    if matches!(role, Role::Worker | Role::Run) {
        add(Kind::Topic, events(), &[Read, DescribeConfigs]);
        tiers().for_each(|tier| add(Kind::Topic, tier, &[Read, Write, DescribeConfigs]));
        // Workers write operational events there.
        add(Kind::Topic, names.replays(), &[Read, Write, DescribeConfigs]);
        add(Kind::Topic, names.dead_letters(), &[Write, DescribeConfigs]);
        add(Kind::Group, names.events_group().to_owned(), &[Read]);
        add(Kind::Group, names.retry_group(), &[Read]);
    }
    if matches!(role, Role::Admin | Role::Run) {
        add(Kind::Topic, events(), &[Read, DescribeConfigs]);
        add(Kind::Topic, names.dead_letters(), &[Read, DescribeConfigs]);
        tiers().for_each(|tier| add(Kind::Topic, tier, &[Describe, DescribeConfigs]));
        add(Kind::Topic, names.replays(), &[Read, Write, DescribeConfigs]);
        add(Kind::Group, names.events_group().to_owned(), &[Describe]);
        add(Kind::Group, names.retry_group(), &[Describe]);
        add(Kind::Group, names.replay_group(), &[Read]);
    }
    if role == Role::Producer {
        add(Kind::Topic, events(), &[Write]);
    }
    all
}

/// Asks the broker for the rights of this process, and compares them with those that `role` needs. Blocks the thread for
/// at most twice 15 seconds.
///
/// # Errors
/// If the client can't be made, or the broker doesn't answer.
pub fn compare(config: &Config, role: Role) -> anyhow::Result<Vec<Compared>> {
    let client: AdminClient<Logging> =
        clients::producer(config).create_with_context(Logging).context("the Kafka client can't be made")?;
    let needed = needed(config, role);
    let names =
        |kind| -> Vec<&str> { needed.iter().filter(|one| one.kind == kind).map(|one| one.name.as_str()).collect() };
    let failed = |problem: String| anyhow::anyhow!("{}", refusal::ask(config).unwrap_or(problem));
    let topics = on_topics(&client, &names(Kind::Topic), ANSWER_MAX).map_err(failed)?;
    let groups = match names(Kind::Group) {
        none if none.is_empty() => HashMap::new(),
        groups => on_groups(&client, &groups, ANSWER_MAX).map_err(failed)?,
    };
    let compared = needed.into_iter().map(|needed| {
        let found = match needed.kind {
            Kind::Topic => topics.get(&needed.name),
            Kind::Group => groups.get(&needed.name),
        };
        Compared { missing: missing(&needed, found), needed }
    });
    Ok(compared.collect())
}

/// The operations that are needed and not allowed, or why they are not known.
fn missing(needed: &Needed, found: Option<&Allowed>) -> Result<Vec<Operation>, String> {
    match found {
        Some(Allowed::Only(allowed)) => {
            Ok(needed.operations.iter().filter(|one| !allowed.contains(one)).copied().collect())
        }
        Some(Allowed::Missing) => Err("it doesn't exist yet; `topics create` creates it".to_owned()),
        Some(Allowed::Unknown(why)) => Err(why.clone()),
        None => Err("the broker's answer leaves it out".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_with_the_admin_server_needs_what_both_need() {
        let config = Config::built_in();
        let run = needed(&config, Role::Run);
        for role in [Role::Worker, Role::Admin] {
            for one in needed(&config, role) {
                let both = run.iter().find(|other| (other.kind, &other.name) == (one.kind, &one.name)).unwrap();
                assert!(one.operations.iter().all(|operation| both.operations.contains(operation)), "{one:?} {both:?}");
            }
        }
        let mut names: Vec<_> = run.iter().map(|one| (one.kind.to_string(), &one.name)).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "each topic and group is asked for once");
    }

    #[test]
    fn what_the_broker_does_not_say_is_not_taken_for_allowed() {
        let needed = Needed {
            kind: Kind::Topic,
            name: "t".to_owned(),
            operations: vec![Operation::Read, Operation::DescribeConfigs],
        };
        let only = |allowed: &[Operation]| missing(&needed, Some(&Allowed::Only(allowed.to_vec())));
        assert_eq!(only(&[Operation::Read]), Ok(vec![Operation::DescribeConfigs]));
        assert_eq!(only(&[Operation::DescribeConfigs, Operation::Write, Operation::Read]), Ok(Vec::new()));
        for unknown in [None, Some(&Allowed::Missing), Some(&Allowed::Unknown("why".to_owned()))] {
            assert!(missing(&needed, unknown).is_err());
        }
    }
}
