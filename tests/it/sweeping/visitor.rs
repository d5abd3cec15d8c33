//! A client of the admin server that keeps every answer.

use std::sync::Mutex;

use serde_json::Value;

use crate::harness::worker::{Worker, client};

pub struct Visitor<'a> {
    worker: &'a Worker,
    client: reqwest::Client,
    /// Each answer with its headers.
    pub answers: Mutex<Vec<(String, Vec<u8>)>>,
}

pub struct Answer {
    pub status: u16,
    pub cookie: String,
    pub body: String,
}

impl<'a> Visitor<'a> {
    pub fn new(worker: &'a Worker) -> Self {
        Self { worker, client: client(), answers: Mutex::default() }
    }

    async fn send(&self, what: String, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let mut kept = format!("{status}\n").into_bytes();
        let mut cookie = String::new();
        for (name, value) in answer.headers() {
            if name == "set-cookie" {
                cookie = value.to_str().unwrap().split(';').next().unwrap().to_owned();
            }
            kept.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        let body = answer.text().await.unwrap();
        kept.extend(body.as_bytes());
        self.answers.lock().unwrap().push((what, kept));
        Answer { status, cookie, body }
    }

    /// Calls the API.
    pub async fn call(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.worker.address()));
        let mut request = request.bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        self.send(format!("{method} {path}"), request).await
    }

    /// Opens a page.
    pub async fn page(&self, cookie: &str, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.worker.address())).header("cookie", cookie);
        self.send(format!("page {path}"), request).await
    }

    /// Sends a form of the session's page.
    pub async fn form(&self, cookie: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.page(cookie, "/status").await.body;
        let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap_or_default().split('"').next().unwrap();
        let form = serde_html_form::to_string([&[("csrf", csrf)], fields].concat()).unwrap();
        let request = self.client.post(format!("{}{path}", self.worker.address())).header("cookie", cookie).body(form);
        self.send(format!("form {path}"), request.header("content-type", "application/x-www-form-urlencoded")).await
    }

    /// Tries to sign in.
    pub async fn sign_in(&self, token: &str) -> Answer {
        self.form("", "/sign-in", &[("token", token)]).await
    }
}
