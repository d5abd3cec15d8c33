//! A real Prometheus that scrapes one worker, and its tool `promtool`.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::eventually;

/// The file with the alerts.
pub fn alerts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus/alerts.yml")
}

/// Runs `promtool` with `arguments` and `input`. Returns whether it succeeded, and everything that it printed.
pub fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is installed (Debian: apt-get install prometheus)");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

pub struct Prometheus {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it with the alerts, and scrapes the process at `target` every second.
    pub async fn watching(target: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let config = folder.path().join("prometheus.yml");
        let rules = alerts();
        let target = target.trim_start_matches("http://");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  - job_name: optio-webhooks\n    static_configs: [{{targets: ['{target}']}}]\n",
            rules.display()
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("prometheus is installed (Debian: apt-get install prometheus)");
        let prometheus = Self { child, address, _folder: folder };
        eventually("prometheus has scraped the worker", async || {
            let up = prometheus.values("up").await?;
            (up == [1.0]).then_some(())
        })
        .await;
        prometheus
    }

    async fn get(&self, path: &str, query: &str) -> Option<Value> {
        let url = format!("http://{}{path}?{}", self.address, serde_html_form::to_string([("query", query)]).unwrap());
        let answer = super::worker::client().get(url).send().await.ok()?.text().await.ok()?;
        serde_json::from_str(&answer).ok()
    }

    /// The values of `query` now. Returns `None` if Prometheus does not answer. Panics if it refuses the query.
    pub async fn values(&self, query: &str) -> Option<Vec<f64>> {
        let answer = self.get("/api/v1/query", query).await?;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let result = answer["data"]["result"].as_array().unwrap();
        Some(result.iter().map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect())
    }

    /// The health of each rule, as Prometheus reports it, by name.
    pub async fn rules(&self) -> Option<Vec<(String, String)>> {
        let answer = self.get("/api/v1/rules", "").await?;
        let groups = answer["data"]["groups"].as_array()?;
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap().iter());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(rules.map(|rule| (text(&rule["name"]), text(&rule["health"]))).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
