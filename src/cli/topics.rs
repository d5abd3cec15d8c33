//! `topics check|create`: compares the existing topics with the required ones, and creates those that are missing.

use super::output::note;
use super::{Failure, say};
use crate::config::{BadConfig, Config};
use crate::kafka::admin;

/// `optio-webhooks topics`
#[derive(clap::Subcommand)]
pub enum Topics {
    /// Show for each topic whether it exists and whether its settings would lose data. Exits with 78 if a topic is
    /// missing, would lose data, or can't hold the largest records.
    Check {
        /// Print JSON.
        #[arg(long)]
        json: bool,
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
            Self::Check { json } => {
                let found = topics.check().await?;
                if json {
                    super::say_json(&serde_json::json!({ "topics": found }))?;
                } else {
                    for found in &found {
                        say(&line(found));
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
                let problems: Vec<String> =
                    found.into_iter().filter_map(|found| found.problem().or(found.too_small)).collect();
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
