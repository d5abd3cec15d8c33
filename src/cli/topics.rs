//! `topics check|create`: compares the existing topics with the required ones, and creates those that are missing.

mod acls;

use super::output::note;
use super::{Failure, say};
use crate::config::{BadConfig, Config};
use crate::kafka::admin;
use crate::kafka::rights::{self, Role};

/// `optio-webhooks topics`
#[derive(clap::Subcommand)]
pub enum Topics {
    /// Show for each topic whether it exists and whether its settings would lose data. Exits with 78 if a topic is
    /// missing, would lose data, or can't hold the largest records.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Also ask the broker which rights this process lacks for a role, and print the rules that are missing.
        #[arg(long, value_name = "ROLE", num_args = 0..=1, default_missing_value = "run")]
        acls: Option<Role>,
    },
    /// Create the missing topics, with settings that lose no data.
    Create,
}

impl Topics {
    /// Checks or creates the topics.
    pub async fn run(self, config: &Config) -> Result<(), Failure> {
        let topics = admin::Topics::new(config)?;
        match self {
            Self::Create => {
                let created = topics.create().await?;
                for topic in &created {
                    say(&format!("created  {topic}"));
                }
                if created.is_empty() {
                    say("nothing to create: every topic exists");
                }
                Ok(())
            }
            Self::Check { json, acls } => {
                let mut found = topics.check().await?;
                let rights = match acls {
                    Some(role) => Some(tokio::task::block_in_place(|| rights::compare(config, role))?),
                    None => None,
                };
                if let Some(rights) = &rights {
                    // What the role doesn't use, and what it may not even see, is no problem of the topic.
                    let is_seen = |topic: &str| rights.iter().any(|one| one.needed.name == topic && one.is_seen());
                    found.retain(|found| is_seen(&found.topic));
                }
                if json {
                    let mut answer = serde_json::json!({ "topics": found });
                    if let Some(rights) = &rights {
                        answer["rights"] = rights.iter().map(acls::json).collect();
                    }
                    super::say_json(&answer)?;
                } else {
                    for found in &found {
                        say(&line(found));
                    }
                    for compared in rights.iter().flatten() {
                        say(&acls::line(compared));
                    }
                }
                for found in &found {
                    if let Some(why) = &found.unchecked {
                        note(&format!(
                            "topic {}: {why}; retention, cleanup policy and record size are not checked",
                            found.topic
                        ));
                    }
                }
                let mut problems: Vec<String> =
                    found.into_iter().filter_map(|found| found.problem().or(found.too_small)).collect();
                if let Some(rights) = rights {
                    acls::report(&rights);
                    problems.extend(rights.iter().filter_map(acls::problem));
                }
                if problems.is_empty() { Ok(()) } else { Err(BadConfig(problems.join("\n")).into()) }
            }
        }
    }
}

fn line(found: &admin::Found) -> String {
    let state = match found.partitions {
        None => "missing",
        Some(_) if found.objection.is_some() || found.too_small.is_some() => "unfit",
        Some(_) if found.unchecked.is_some() => "unchecked",
        Some(_) => "ok",
    };
    let partitions = found.partitions.map_or(String::new(), |count| format!("{count} partitions"));
    format!("{state:<9} {:<32} {partitions}", found.topic).trim_end().to_owned()
}
