//! A worker that runs as a separate process, as in production.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::eventually;
use super::world::TOKEN;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_optio-webhooks");

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(client);

/// An HTTP client for the pages and the API that follows no redirect.
pub fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.timeout(Duration::from_secs(10)).build().unwrap()
}

pub struct Worker {
    child: Child,
    admin: String,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Worker {
    /// Starts a worker and doesn't wait until it is ready.
    pub fn start(settings: &[(String, String)]) -> Self {
        Self::start_with(&["run"], settings)
    }

    /// Starts the program with `arguments` and doesn't wait until it is ready.
    pub fn start_with(arguments: &[&str], settings: &[(String, String)]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        Self::spawn(command, settings)
    }

    /// Starts a worker that may open only this many files.
    pub fn start_with_files(files_max: usize, settings: &[(String, String)]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files_max} && exec \"$0\" run"), PROGRAM]);
        Self::spawn(command, settings)
    }

    fn spawn(mut command: Command, settings: &[(String, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let admin = format!("127.0.0.1:{port}");
        let file = std::fs::File::create(&log).unwrap();
        let child = command
            .envs(settings.iter().cloned())
            .env("OPTIO_WEBHOOKS__ADMIN__LISTEN", &admin)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, admin, log, _folder: folder }
    }

    /// Everything that the process printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Gets status and body of a page of the admin server. Returns `None` if the server doesn't answer.
    pub async fn page(&self, path: &str) -> Option<(u16, String)> {
        let answer = CLIENT.get(format!("http://{}{path}", self.admin)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Signs in to the pages, and returns the cookie.
    pub async fn sign_in(&self, token: &str) -> String {
        let form = serde_html_form::to_string([("token", token)]).unwrap();
        let request = CLIENT.post(format!("{}/sign-in", self.address())).body(form);
        let answer = request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
        assert_eq!(answer.status(), 303);
        answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    /// Sends the sign-in form. Returns the status and the body of the answer.
    pub async fn try_sign_in(&self, token: &str) -> (u16, String) {
        let form = serde_html_form::to_string([("token", token)]).unwrap();
        let request = CLIENT.post(format!("{}/sign-in", self.address())).body(form);
        let answer = request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Gets status and body of a page as the person with this cookie.
    pub async fn page_as(&self, cookie: &str, path: &str) -> (u16, String) {
        let request = CLIENT.get(format!("{}{path}", self.address())).header("cookie", cookie);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Sends a form as the person with this cookie, with the token of that person's session. Returns status and body.
    pub async fn send_form(&self, cookie: &str, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let (_, page) = self.page_as(cookie, "/settings/webhooks").await;
        let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap_or_default().split('"').next().unwrap();
        let form = serde_html_form::to_string([&[("csrf", csrf)], fields].concat()).unwrap();
        let request = CLIENT.post(format!("{}{path}", self.address())).header("cookie", cookie).body(form);
        let answer = request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The base URL of the admin server.
    pub fn address(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// Calls the API with the token, and returns status and body.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().unwrap();
        let mut request = CLIENT.request(method, format!("{}{path}", self.address())).bearer_auth(TOKEN);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("the API answers JSON") })
    }

    /// Calls the API without the token, and returns status and body.
    pub async fn call_without_token(&self, method: &str, path: &str) -> (u16, String) {
        let request = CLIENT.request(method.parse().unwrap(), format!("{}{path}", self.address()));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Waits until `/readyz` reports the worker as ready or, if `ready` is false, as not ready. Panics if it ends.
    pub async fn readiness(&mut self, ready: bool) {
        let status = if ready { 200 } else { 503 };
        eventually(&format!("/readyz answers {status}"), async || {
            if let Ok(Some(exit)) = self.child.try_wait() {
                panic!("the worker ended: {exit}\n{}", self.log());
            }
            self.page("/readyz").await.filter(|(is, _)| *is == status)
        })
        .await;
    }

    /// The peak of the worker's resident memory.
    pub fn memory_peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The number of its Kafka producers, each of which has a thread that polls it.
    pub fn producers(&self) -> usize {
        let names = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().filter_map(|task| {
            // A thread may end meanwhile.
            std::fs::read_to_string(task.unwrap().path().join("comm")).ok()
        });
        // The kernel keeps 15 bytes of "producer polling thread".
        names.filter(|name| name.trim() == "producer pollin").count()
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Sends SIGTERM and waits for the exit.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.exit().await
    }

    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the worker exits", async || self.child.try_wait().unwrap()).await
    }

    /// Sends SIGKILL and waits for the exit.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the last lines of the worker's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
