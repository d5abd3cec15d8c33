//! A headless Chromium that is driven through WebDriver.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use axum::http;
use fantoccini::elements::Element;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use super::eventually;
use super::world::TOKEN;

const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

pub struct Browser {
    pub client: Client,
    driver: Child,
    address: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser. If chromedriver is missing, reports the skipped test and returns `None`.
    pub async fn start(address: &str) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let spawned = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(driver) = spawned else {
            super::skipped(
                "chromedriver is missing, so no page was tested; on Debian: apt-get install chromium chromium-driver",
            );
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        let Value::Object(capabilities) = capabilities else { unreachable!("json! built an object") };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        let webdriver = format!("http://127.0.0.1:{port}");
        let client = eventually("the browser starts", async || builder.connect(&webdriver).await.ok()).await;
        Some(Self { client, driver, address: address.to_owned(), _profile: profile })
    }

    /// Ends the session. If a test panics before this, the browser ends when the driver is killed.
    pub async fn close(self) {
        self.client.clone().close().await.unwrap();
    }

    pub async fn open(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.address)).await.unwrap();
    }

    pub async fn sign_in(&self) {
        self.open("/").await;
        self.fill("token", TOKEN).await;
        self.press("Sign in").await;
        self.sees("Webhooks").await;
    }

    /// The path of the current URL.
    pub async fn path(&self) -> String {
        self.client.current_url().await.unwrap().path().to_owned()
    }

    /// Waits until the page shows `text`.
    pub async fn sees(&self, text: &str) {
        let what = format!("the page shows {text:?}");
        eventually(&what, async || self.text().await.contains(text).then_some(())).await;
    }

    /// The visible text of the page.
    pub async fn text(&self) -> String {
        match self.client.find(Locator::Css("body")).await {
            Ok(body) => body.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Waits for the field with this id.
    pub async fn field(&self, id: &str) -> Element {
        let what = format!("the field {id} appears");
        eventually(&what, async || self.client.find(Locator::Id(id)).await.ok()).await
    }

    /// The value of a field.
    pub async fn value(&self, id: &str) -> String {
        self.field(id).await.prop("value").await.unwrap().unwrap_or_default()
    }

    /// Replaces the value of a field.
    pub async fn fill(&self, id: &str, text: &str) {
        let field = self.field(id).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    pub async fn choose(&self, id: &str, value: &str) {
        self.field(id).await.select_by_value(value).await.unwrap();
    }

    pub async fn tick(&self, id: &str) {
        self.field(id).await.click().await.unwrap();
    }

    /// Clicks the button or link with this name.
    pub async fn press(&self, name: &str) {
        let path = format!("//*[self::button or self::a][normalize-space()='{name}']");
        let what = format!("the button {name:?} appears");
        let found = eventually(&what, async || self.client.find(Locator::XPath(&path)).await.ok()).await;
        found.click().await.unwrap();
    }

    /// The violations that axe-core finds on the page (WCAG 2.2, levels A and AA).
    pub async fn violations(&self, axe: &str) -> Vec<String> {
        self.client.execute(axe, vec![]).await.unwrap();
        let run = "const done = arguments[arguments.length - 1];
            axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })
                .then(found => done(found.passes.length === 0 ? ['axe-core checked nothing'] : found.violations.map(it => it.id + ': ' + it.help + ' ' + it.nodes.map(n => n.html).join(' | '))));";
        let found = self.client.execute_async(run, vec![]).await.unwrap();
        serde_json::from_value(found).unwrap()
    }

    /// Sets media features, for example the colour scheme, through the DevTools protocol.
    pub async fn emulate(&self, features: &Value) {
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Sets the width of a phone. A browser window can't be this narrow.
    pub async fn narrow(&self, width: u32) {
        let metrics = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": true });
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics).await;
    }

    pub async fn wide(&self) {
        self.devtools("Emulation.clearDeviceMetricsOverride", &json!({})).await;
    }

    async fn devtools(&self, command: &str, parameters: &Value) {
        let call = DevTools { command: command.to_owned(), parameters: parameters.clone() };
        self.client.issue_cmd(call).await.unwrap();
    }

    pub async fn screenshot(&self, name: &str) {
        // `SCREENSHOTS=folder make test` keeps screenshots to look at.
        if let Some(folder) = std::env::var_os("SCREENSHOTS") {
            let png = self.client.screenshot().await.unwrap();
            std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), png).unwrap();
        }
    }
}

/// A command of the Chrome DevTools protocol.
#[derive(Debug)]
struct DevTools {
    command: String,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        let body = json!({ "cmd": self.command, "params": self.parameters });
        (http::Method::POST, Some(body.to_string()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
