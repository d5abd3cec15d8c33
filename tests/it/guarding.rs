//! Who gets in to the admin server, what they may do, and what strangers can't do to it.

mod auditing;
mod connections;
mod sessions;

use std::net::IpAddr;
use std::process::Command;

use optio_webhooks::event::EventType;
use serde_json::{Value, json};

use crate::harness::World;
use crate::harness::worker::PROGRAM;
use crate::harness::world::{SECRET, TOKEN};

/// A token that may only read.
const READER: &str = "a token that reads";

fn with_reader() -> [(&'static str, &'static str); 1] {
    [("admin.tokens", r#"[{ name = "reader", token = "a token that reads", role = "read" }]"#)]
}

/// A client of the admin server with an address of its own.
fn client_at(last: u8) -> reqwest::Client {
    let address = IpAddr::from([127, 0, 0, last]);
    reqwest::Client::builder()
        .no_proxy()
        .local_address(address)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_the_role_read_looks_at_everything_and_changes_nothing() {
    let world = World::with(&with_reader()).await;
    let worker = world.worker().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    let call = async |method: &str, path: &str| {
        let request = client_at(1).request(method.parse().unwrap(), format!("{}{path}", worker.address()));
        let answer = request.bearer_auth(READER).json_body(json!({})).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let one = format!("/api/webhooks/{webhook}");
    for path in ["/api/webhooks", &one, "/api/status", "/api/audit", "/api/dead-letters", "/openapi.json"] {
        assert_eq!(call("GET", path).await.0, 200, "{path}");
    }
    for (method, path) in [
        ("POST", "/api/webhooks".to_owned()),
        ("PATCH", one.clone()),
        ("DELETE", one.clone()),
        ("POST", format!("{one}/test")),
        ("POST", format!("{one}/rotate-secret")),
        ("POST", format!("{one}/deliveries/1-0/redeliver")),
        ("POST", "/api/dead-letters/replay".to_owned()),
    ] {
        let (status, body) = call(method, &path).await;
        assert!(status == 403 && body.contains("may only read"), "{method} {path}: {status} {body}");
    }
    let cookie = worker.sign_in(READER).await;
    let page = format!("/settings/webhooks/{webhook}");
    for path in [&page, "/settings/webhooks", "/dead-letters", "/audit", "/status"] {
        let (status, text) = worker.page_as(&cookie, path).await;
        assert_eq!(status, 200, "{path}");
        // The only form that is left is the one that signs out.
        let forms: Vec<&str> = text.split("method=\"post\"").skip(1).collect();
        assert!(forms.len() == 1 && forms[0].contains("/sign-out"), "{path}: {text}");
    }
    assert_eq!(worker.page_as(&cookie, "/settings/webhooks/new").await.0, 403);
    assert_eq!(worker.page_as(&cookie, &format!("{page}/delete")).await.0, 403);
    for path in ["", "/active", "/rotate-secret", "/test", "/delete", "/deliveries/1-0/redeliver"] {
        let (status, text) = worker.send_form(&cookie, &format!("{page}{path}"), &[("active", "false")]).await;
        assert!(status == 403 && text.contains("may only read"), "{path}: {status}");
    }
    assert_eq!(worker.send_form(&cookie, "/dead-letters/replay", &[("all", "true")]).await.0, 403);
    assert!(world.store().get(webhook).await.unwrap().unwrap().active);
    assert_eq!(world.receiver.count(), 0);
    assert_eq!(worker.send_form(&cookie, "/sign-out", &[]).await.0, 303);
}

trait JsonBody {
    fn json_body(self, body: Value) -> Self;
}

impl JsonBody for reqwest::RequestBuilder {
    fn json_body(self, body: Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_slow_only_the_client_that_tries_them() {
    let world = World::new().await;
    let worker = world.admin().await;
    let (guesser, other) = (client_at(2), client_at(3));
    let ask = async |client: &reqwest::Client, token: &str| {
        let request = client.get(format!("{}/api/webhooks", worker.address()));
        request.bearer_auth(token).send().await.unwrap()
    };
    // The guesser's own session goes on.
    let cookie = worker.sign_in(TOKEN).await;
    assert_eq!(ask(&guesser, TOKEN).await.status(), 200);
    for guess in 0..10 {
        assert_eq!(ask(&guesser, &format!("guess {guess}")).await.status(), 401);
    }
    let refused = ask(&guesser, TOKEN).await;
    assert_eq!(refused.status(), 429, "the right token isn't looked at, so that guessing is slow");
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let form = guesser.post(format!("{}/sign-in", worker.address())).body("token=guess");
    let form = form.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    assert!(form.status() == 429 && form.headers().contains_key("retry-after"), "the form has the same limit");
    let page = guesser.get(format!("{}/settings/webhooks", worker.address())).header("cookie", &cookie);
    assert_eq!(page.send().await.unwrap().status(), 200, "a session needs no token");
    assert_eq!(ask(&other, TOKEN).await.status(), 200);

    let (_, audit) = worker.call("GET", "/api/audit", None).await;
    let failed = audit["entries"].as_array().unwrap().iter().filter(|entry| entry["what"] == "sign_in_failed");
    let failed: Vec<&Value> = failed.collect();
    assert_eq!((failed.len(), &failed[0]["who"]["address"]), (1, &json!("127.0.0.2")), "one entry a minute");
    let (_, metrics) = worker.page("/metrics").await.unwrap();
    assert!(metrics.contains("optio_webhooks_admin_sign_in_failures_total 10"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_behind_a_trusted_proxy_is_the_one_that_counts() {
    let mut world = World::new().await;
    world.set("admin.trusted_proxies", r#"["127.0.0.4/32"]"#);
    let worker = world.admin().await;
    let ask = async |proxy: u8, client: &str, token: &str| {
        let request = client_at(proxy).get(format!("{}/api/webhooks", worker.address()));
        let request = request.header("x-forwarded-for", format!("10.9.9.9, {client}")).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    for _ in 0..10 {
        assert_eq!(ask(4, "192.0.2.1", "wrong").await, 401);
    }
    assert_eq!([ask(4, "192.0.2.1", TOKEN).await, ask(4, "192.0.2.2", TOKEN).await], [429, 200]);
    for client in 1..=10 {
        assert_eq!(ask(5, &format!("192.0.2.{client}"), "wrong").await, 401);
    }
    assert_eq!(ask(5, "192.0.2.99", TOKEN).await, 429, "others can't choose their address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_host_is_refused_and_probes_may_use_any() {
    let mut world = World::new().await;
    world.set("admin.hosts", r#"["webhooks.example.com"]"#);
    let worker = world.admin().await;
    let ask = async |path: &str, host: &str| {
        let request = client_at(1).get(format!("{}{path}", worker.address())).header("host", host);
        let answer = request.bearer_auth(TOKEN).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for path in ["/api/webhooks", "/api/nonsense", "/openapi.json", "/sign-in", "/settings/webhooks", "/nonsense"] {
        for host in ["evil.example", "localhost", "webhooks.example.com.evil.example"] {
            let (status, body) = ask(path, host).await;
            assert!(status == 421 && body.contains("admin.hosts"), "{path} {host}: {status} {body}");
        }
    }
    let own = worker.address().replace("http://", "");
    for host in ["webhooks.example.com", "WEBHOOKS.example.com:443", &own] {
        assert_eq!(ask("/api/webhooks", host).await.0, 200, "{host}");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ask(path, "10.42.0.7:8080").await.0, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_reach_needs_a_token_to_start() {
    let mut world = World::new().await;
    world.set("admin.token", "");
    world.set("admin.listen", "0.0.0.0:0");
    let run = |arguments: &[&str], token: Option<&str>| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).envs(world.environment());
        if let Some(token) = token {
            command.env("OPTIO_WEBHOOKS__ADMIN__TOKEN", token);
        }
        tokio::task::block_in_place(|| command.output().unwrap())
    };
    for arguments in [["run"].as_slice(), &["run", "--only", "admin"], &["config", "check"]] {
        let refused = run(arguments, None);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(78) && stderr.contains("admin.token"), "{stderr}");
    }
    assert_eq!(run(&["config", "check", "--only", "worker"], None).status.code(), Some(0), "a worker has no page");
    let short = run(&["run"], Some("fifteen letters"));
    let stderr = String::from_utf8_lossy(&short.stderr).into_owned();
    assert!(short.status.code() == Some(78) && stderr.contains("16 characters"), "{stderr}");
    assert!(!stderr.contains("fifteen"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_caching_and_guessing_its_type() {
    let world = World::new().await;
    let worker = world.admin().await;
    let cookie = worker.sign_in(TOKEN).await;
    for (path, is_page) in [
        ("/api/webhooks", false),
        ("/api/webhooks/nonsense", false),
        ("/api/nonsense", false),
        ("/api/webhooks?page=1", false),
        ("/openapi.json", false),
        ("/metrics", false),
        ("/settings/webhooks", true),
        ("/sign-in", true),
        ("/nonsense", true),
    ] {
        for token in [TOKEN, "wrong"] {
            let request = client_at(1).get(format!("{}{path}", worker.address())).header("cookie", &cookie);
            let answer = request.bearer_auth(token).send().await.unwrap();
            let header = |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap());
            assert_eq!((header("cache-control"), header("x-content-type-options")), ("no-store", "nosniff"), "{path}");
            if is_page {
                let policy = header("content-security-policy");
                assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
                assert_eq!((header("referrer-policy"), header("x-frame-options")), ("same-origin", "DENY"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_out_of_bounds_is_refused_with_its_bounds() {
    let world = World::new().await;
    let worker = world.admin().await;
    let webhook = world.webhook("/hook", &[EventType::TaskFailed]).await;
    let log = format!("/api/webhooks/{webhook}/deliveries");
    for path in [log.as_str(), "/api/dead-letters", "/api/audit"] {
        for number in ["0", "201", "-1", "1.5", "18446744073709551615", "18446744073709551616", "x", ""] {
            let (status, problem) = worker.call("GET", &format!("{path}?limit={number}"), None).await;
            let sentence = problem["error"].as_str().unwrap();
            assert!(status == 400 && sentence.contains("limit") && sentence.contains("1 to 200"), "{path} {sentence}");
        }
    }
    for request in [json!({ "limit": 0 }), json!({ "limit": u64::MAX }), json!({ "limit": -1 }), json!({ "rate": 0 })] {
        let (status, problem) = worker.call("POST", "/api/dead-letters/replay", Some(request.clone())).await;
        let sentence = problem["error"].as_str().unwrap();
        assert!(status == 400 && sentence.contains("whole number from 1 to"), "{request}: {sentence}");
    }
    let cookie = worker.sign_in(TOKEN).await;
    for path in ["/dead-letters/x/1", "/dead-letters/0/-1", "/dead-letters/-1000/99999999999999999999"] {
        let (status, page) = worker.page_as(&cookie, path).await;
        assert!(status == 404 && page.contains("<html"), "{path}: {status}");
    }
    for query in ["before=x", "before=18446744073709551616-0"] {
        let (status, page) = worker.page_as(&cookie, &format!("/audit?{query}")).await;
        assert!(status == 400 && page.contains("before"), "{query}: {status}");
    }
    let audit = worker.call("GET", "/api/audit?before=18446744073709551615-18446744073709551615", None).await;
    assert_eq!(audit.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_who_changed_what_without_secrets() {
    let world = World::with(&[("admin.audit_entries_max", "100")]).await;
    let worker = world.admin().await;
    let draft = json!({ "url": world.receiver.url("/hook"), "events": ["task.failed"], "secret": SECRET });
    let (_, added) = worker.call("POST", "/api/webhooks", Some(draft)).await;
    let id = added["webhook"]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/webhooks/{id}");
    worker.call("PATCH", &path, Some(json!({ "description": "changed" }))).await;
    worker.call("PATCH", &path, Some(json!({ "url": "refused" }))).await;
    worker.call("POST", &format!("{path}/rotate-secret"), Some(json!({ "secret": format!("{SECRET} 2") }))).await;
    worker.call("POST", &format!("{path}/test"), None).await;
    let cookie = worker.sign_in(TOKEN).await;
    worker.send_form(&cookie, &format!("/settings/webhooks/{id}/active"), &[("active", "false")]).await;
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).envs(world.environment());
        assert!(tokio::task::block_in_place(|| command.output().unwrap()).status.success(), "{arguments:?}");
    };
    run(&["webhooks", "update", &id, "--active", "true"]);
    worker.call("POST", "/api/dead-letters/replay", Some(json!({ "all": true }))).await;
    worker.call("DELETE", &path, None).await;
    run(&["replay", "--all", "--yes"]);
    worker.send_form(&cookie, "/sign-out", &[]).await;

    let (status, page) = worker.call("GET", "/api/audit?limit=200", None).await;
    let mut entries = page["entries"].as_array().unwrap().clone();
    entries.reverse();
    let found: Vec<(&str, &str)> =
        entries.iter().map(|entry| (entry["what"].as_str().unwrap(), entry["who"]["via"].as_str().unwrap())).collect();
    assert_eq!(
        (status, found.as_slice()),
        (
            200,
            [
                ("webhook_added", "bearer"),
                ("webhook_changed", "bearer"),
                ("secret_rotated", "bearer"),
                ("test_sent", "bearer"),
                ("signed_in", "session"),
                ("webhook_changed", "session"),
                ("webhook_changed", "command_line"),
                ("replay_started", "bearer"),
                ("webhook_removed", "bearer"),
                ("replay_started", "command_line"),
                ("signed_out", "session"),
            ]
            .as_slice()
        )
    );
    assert_eq!(entries[0]["who"], json!({ "via": "bearer", "name": "admin", "address": "127.0.0.1" }));
    assert_eq!((&entries[0]["old"], &entries[0]["new"]["secret"]), (&Value::Null, &json!("••••••")));
    assert_eq!(
        (&entries[1]["old"]["description"], &entries[1]["new"]["description"]),
        (&Value::Null, &json!("changed"))
    );
    assert_eq!((&entries[5]["old"]["active"], &entries[5]["new"]["active"]), (&json!(true), &json!(false)));
    assert!(entries[6]["who"]["name"].is_string() && entries[6]["who"]["address"].is_null());
    assert_eq!((&entries[8]["target"], &entries[8]["old"]["description"]), (&json!(id), &json!("changed")));
    assert!(!page.to_string().contains(SECRET) && !page.to_string().contains(TOKEN));

    // Pages join without gaps, and the page for people shows the same.
    let (_, first) = worker.call("GET", "/api/audit?limit=4", None).await;
    let before = first["next"].as_str().unwrap();
    let (_, second) = worker.call("GET", &format!("/api/audit?limit=200&before={before}"), None).await;
    assert_eq!([first["entries"].as_array().unwrap().len(), second["entries"].as_array().unwrap().len()], [4, 7]);
    assert_eq!(second["next"], Value::Null);
    let cookie = worker.sign_in(TOKEN).await;
    let (_, shown) = worker.page_as(&cookie, "/audit").await;
    assert!(shown.contains("secret rotated") && shown.contains("127.0.0.1") && !shown.contains(SECRET), "{shown}");

    // The log is bounded, whatever writes to it.
    for _ in 0..50 {
        for active in [false, true] {
            let draft = json!({ "url": world.receiver.url("/hook"), "events": ["task.failed"], "active": active });
            worker.call("POST", "/api/webhooks", Some(draft)).await;
        }
    }
    let kept: u64 = redis::cmd("XLEN").arg(world.keys().audit()).query_async(&mut world.redis.clone()).await.unwrap();
    assert!((100..=111).contains(&kept), "{kept}");
}
