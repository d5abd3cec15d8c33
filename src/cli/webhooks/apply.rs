//! `webhooks apply` and `webhooks export`: the webhooks as a file that a repository can hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::secret::warn_of_weak_secret;
use crate::admin::unreadable::without_values;
use crate::cli::output::warn;
use crate::cli::{Failure, emit, say, secret_input};
use crate::clock::now_ms;
use crate::config::Config;
use crate::http::client::policy;
use crate::http::vetting::Vetting;
use crate::secret::Secret;
use crate::store::webhooks::{Listing, WebhookStore};
use crate::webhook::declared::{Declared, DeclaredFile, Resolved, differences};
use crate::webhook::draft::Replaces;
use crate::webhook::{BadWebhook, Webhook, WebhookId};

/// How many hosts are looked up at once.
const LOOKUPS_MAX: usize = 32;
/// The longest secret in a file, in bytes.
const SECRET_MAX: usize = 4_096;

/// `webhooks apply`
#[derive(clap::Args)]
#[command(after_help = "The file declares webhooks, each with an id or a name of its own:
  webhooks:
    - name: ci
      url: https://ci.example.com/hooks
      events: [task.completed, task.failed]
      secret: {env: CI_WEBHOOK_SECRET}
      headers:
        X-Route: blue
        Authorization: {file: /run/secrets/ci-token}
      filter: {field: task.repoUrl, glob: \"https://github.com/acme/*\"}
`webhooks export` prints the existing webhooks in this form.")]
pub struct Apply {
    /// The file, in YAML or JSON. \"-\" reads standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    file: PathBuf,
    /// Print the plan, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also remove the webhooks that the file doesn't have.
    #[arg(long)]
    prune: bool,
}

/// One step of the plan.
enum Step {
    Add(Box<Webhook>),
    Change(Box<Resolved>, Box<Webhook>, Vec<&'static str>),
}

/// Prints all webhooks as a file for `webhooks apply`. Secrets are references to what is stored.
pub(super) async fn export(store: &WebhookStore) -> Result<(), Failure> {
    let Listing { webhooks, unsupported, .. } = store.listing().await?;
    let file = DeclaredFile { webhooks: webhooks.iter().map(Declared::of).collect() };
    let yaml = serde_saphyr::to_string(&file).map_err(|error| anyhow::anyhow!("the file can't be made: {error}"))?;
    yaml.lines().for_each(say);
    for unsupported in unsupported {
        warn(&format!("{} is left out, because it can't be read: {}", unsupported.id, unsupported.problem));
    }
    Ok(())
}

impl Apply {
    /// Makes the stored webhooks like the file. All of the file is checked before anything is changed.
    ///
    /// # Errors
    /// The file can't be read or has a mistake, or Redis fails. What was changed before stays, and the same command
    /// goes on from there.
    pub(super) async fn run(
        self,
        adding: &WebhookStore,
        changing: &WebhookStore,
        removing: &WebhookStore,
        config: &Config,
    ) -> Result<(), Failure> {
        let resolved = read(&self.file)?;
        let Listing { webhooks, unsupported, .. } = adding.listing().await?;
        if let Some(unsupported) = unsupported.iter().find(|it| resolved.iter().any(|(_, one)| one.id == it.id)) {
            let sentence = format!("webhook {} can't be read: {}", unsupported.id, unsupported.problem);
            return Err(anyhow::anyhow!(sentence).into());
        }
        let stored: HashMap<WebhookId, &Webhook> = webhooks.iter().map(|webhook| (webhook.id, webhook)).collect();
        let steps = plan(&resolved, &stored, config).await?;
        let declared: HashSet<WebhookId> = resolved.iter().map(|(_, one)| one.id).collect();
        let others: Vec<&Webhook> = webhooks.iter().filter(|webhook| !declared.contains(&webhook.id)).collect();
        let removed = if self.prune { &others[..] } else { &[] };
        let (mut added, mut changed) = (0, 0);
        for step in &steps {
            match step {
                Step::Add(webhook) => {
                    added += 1;
                    say(&format!("add     {}  {}", webhook.id, webhook.url));
                    if !self.dry_run {
                        if adding.add(webhook).await?.is_none() {
                            let id = webhook.id;
                            return Err(anyhow::anyhow!(
                                "somebody else has just added webhook {id}; apply the file again"
                            )
                            .into());
                        }
                        warn_of_weak_secret(webhook);
                    }
                }
                Step::Change(resolved, webhook, fields) => {
                    changed += 1;
                    say(&format!("change  {}  {}: {}", webhook.id, webhook.url, fields.join(", ")));
                    if !self.dry_run {
                        change(changing, resolved).await?;
                    }
                }
            }
        }
        for webhook in removed {
            say(&format!("remove  {}  {}", webhook.id, webhook.url));
            if !self.dry_run {
                removing.remove(webhook.id).await?;
            }
        }
        let unchanged = resolved.len() - steps.len();
        let counts = format!("{added} added, {changed} changed, {} removed, {unchanged} unchanged", removed.len());
        say(&if self.dry_run { format!("{counts} if this were applied") } else { counts });
        if !self.prune && !others.is_empty() {
            say(&format!("{} other webhooks are not in the file and stay; --prune removes them", others.len()));
        }
        Ok(())
    }
}

/// Changes a webhook, from its state at that moment.
async fn change(store: &WebhookStore, resolved: &Resolved) -> Result<(), Failure> {
    let changed = store
        .change(resolved.id, Replaces::default(), |webhook| {
            if let Some(target) = resolved.target(Some(webhook), now_ms())? {
                *webhook = target;
            }
            Ok::<_, BadWebhook>(())
        })
        .await?;
    let changed = changed.ok_or_else(|| anyhow::anyhow!("webhook {} was removed meanwhile; try again", resolved.id))?;
    changed.map(|_| ()).map_err(|problem| Failure::Usage(problem.to_string()))
}

/// Reads the file and its references.
fn read(path: &Path) -> Result<Vec<(String, Resolved)>, Failure> {
    let text = emit::read_input(path)?;
    let file: DeclaredFile = serde_saphyr::from_str(&text).map_err(|error| {
        Failure::Usage(format!("{} can't be read: {}", path.display(), without_values(first_line(&error.to_string()))))
    })?;
    let variable = |name: &str| {
        let secret = secret_input::from_variable(name).map_err(|failure| failure.to_string())?;
        secret.ok_or_else(|| format!("the environment variable {name} isn't set"))
    };
    let mut problems = Vec::new();
    let mut resolved: Vec<(String, Resolved)> = Vec::new();
    for declared in &file.webhooks {
        match declared.resolve(variable, secret_file) {
            Ok(one) if resolved.iter().any(|(_, other)| other.id == one.id) => {
                problems.push(format!("{}: stands twice in the file", declared.label()));
            }
            Ok(one) => resolved.push((declared.label(), one)),
            Err(problem) => problems.push(format!("{}: {problem}", declared.label())),
        }
    }
    refused(problems)?;
    Ok(resolved)
}

fn secret_file(path: &str) -> Result<Secret, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path} can't be read: {error}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{path} is empty")),
        text if text.len() > SECRET_MAX => Err(format!("{path} has more than {SECRET_MAX} bytes")),
        text => Ok(text.into()),
    }
}

/// What has to be done, after everything was checked.
async fn plan(
    resolved: &[(String, Resolved)],
    stored: &HashMap<WebhookId, &Webhook>,
    config: &Config,
) -> Result<Vec<Step>, Failure> {
    let policy = policy(&config.delivery);
    let mut problems = Vec::new();
    let mut steps = Vec::new();
    let mut new_urls = Vec::new();
    for (label, one) in resolved {
        let current = stored.get(&one.id).copied();
        let checked = one.target(current, now_ms()).and_then(|target| {
            if let Some(target) = &target {
                match current {
                    Some(current) => target.check_change(&current.url, &policy)?,
                    None => target.check(&policy)?,
                }
            }
            Ok(target)
        });
        match checked {
            Ok(None) => {}
            Ok(Some(target)) => {
                if current.is_none_or(|current| current.url != target.url) {
                    new_urls.push((label.clone(), target.url.clone()));
                }
                steps.push(match current {
                    Some(current) => {
                        let fields = differences(current, &target);
                        Step::Change(Box::new(one.clone()), Box::new(target), fields)
                    }
                    None => Step::Add(Box::new(target)),
                });
            }
            Err(problem) => problems.push(format!("{label}: {problem}")),
        }
    }
    problems.extend(vetted(new_urls, config).await);
    refused(problems)?;
    Ok(steps)
}

/// Looks up the hosts of new URLs. Returns what is wrong with them, and warns of those that have no address for now.
async fn vetted(urls: Vec<(String, url::Url)>, config: &Config) -> Vec<String> {
    let vetting = Arc::new(Vetting::new(&config.delivery));
    let mut problems = Vec::new();
    let mut warnings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut urls = urls.into_iter();
    let mut lookups = JoinSet::new();
    loop {
        while lookups.len() < LOOKUPS_MAX
            && let Some((label, url)) = urls.next()
        {
            let vetting = vetting.clone();
            lookups.spawn(async move { (label, vetting.check(&url).await) });
        }
        match lookups.join_next().await {
            None => break,
            Some(Ok((label, Err(problem)))) => problems.push(format!("{label}: {problem}")),
            Some(Ok((label, Ok(Some(warning))))) => warnings.entry(warning).or_default().push(label),
            Some(_) => {}
        }
    }
    // Webhooks with the same host share one line.
    for (warning, labels) in warnings {
        let others = match labels.len() {
            0 | 1 => String::new(),
            2 => " and another webhook".to_owned(),
            count => format!(" and {} other webhooks", count - 1),
        };
        let first = labels.first().map_or("", String::as_str);
        warn(&format!("{first}{others}: {warning}"));
    }
    problems
}

fn refused(problems: Vec<String>) -> Result<(), Failure> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(format!("nothing was changed, because of the file:\n  {}", problems.join("\n  "))))
}

/// The first line of a message, without the lines of the file that it quotes, which may have a secret.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
