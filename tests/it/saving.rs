//! What a webhook's owner is told about the host of its URL: when it is saved, and when a test event fails.

use std::process::{Command, Output, Stdio};

use optio_webhooks::event::EventType;
use serde_json::{Value, json};

use crate::harness::World;
use crate::harness::worker::PROGRAM;
use crate::harness::world::TOKEN;

/// A name that no resolver knows (RFC 6761 section 6.4).
const UNKNOWN: &str = "http://nothing.invalid:8080/";
/// A name of this machine, whose addresses are forbidden.
const INTERNAL: &str = "http://localhost:8080/";
const FORBIDDEN: &str = "the host localhost has an address that requests may not go to";
const NO_ADDRESS: &str = "The host nothing.invalid has no address for now.";

/// Nothing but public addresses is allowed.
async fn strict() -> World {
    World::with(&[("delivery.allow_networks", "[]"), ("delivery.resolve_timeout", "2s")]).await
}

fn add(url: &str) -> Option<Value> {
    Some(json!({ "url": url, "events": ["task.failed"] }))
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_refuses_a_forbidden_host_and_warns_of_an_unknown_one() {
    let world = strict().await;
    let admin = world.admin().await;
    let (status, answer) = admin.call("POST", "/api/webhooks", add(INTERNAL)).await;
    assert!(status == 400 && error(&answer).contains(FORBIDDEN) && !error(&answer).contains("127."), "{answer}");
    let (status, answer) = admin.call("POST", "/api/webhooks", add("http://nothing.invalid:25/")).await;
    assert!(status == 400 && error(&answer).contains("the port 25 is not allowed"), "{answer}");
    let (status, answer) = admin.call("POST", "/api/webhooks", add(UNKNOWN)).await;
    assert!(status == 201 && answer["warning"].as_str().unwrap().contains(NO_ADDRESS), "{answer}");

    // A change with another URL resolves it, and any other change resolves nothing, although the page sends the URL too.
    let path = format!("/api/webhooks/{}", answer["webhook"]["id"].as_str().unwrap());
    for (change, warns) in [
        (json!({ "description": "d" }), false),
        (json!({ "description": "e", "url": UNKNOWN }), false),
        (json!({ "url": format!("{UNKNOWN}other") }), true),
    ] {
        let (status, answer) = admin.call("PATCH", &path, Some(change)).await;
        assert_eq!((status, !answer["warning"].is_null()), (200, warns), "{answer}");
    }
    let (status, answer) = admin.call("PATCH", &path, Some(json!({ "url": INTERNAL }))).await;
    assert!(status == 400 && error(&answer).contains(FORBIDDEN), "{answer}");

    // A webhook whose URL is no longer allowed can be paused.
    let old = world.webhook("/", &[EventType::TaskFailed]).await;
    let (status, answer) = admin.call("PATCH", &format!("/api/webhooks/{old}"), Some(json!({ "active": false }))).await;
    assert_eq!((status, &answer["webhook"]["active"]), (200, &json!(false)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_the_command_line_check_the_host_as_well() {
    let world = strict().await;
    let admin = world.admin().await;
    let cookie = admin.sign_in(TOKEN).await;
    let form = async |url: &str| {
        admin.send_form(&cookie, "/settings/webhooks", &[("url", url), ("events", "task.failed")]).await
    };
    let (status, page) = form(INTERNAL).await;
    assert!(status == 400 && page.contains(FORBIDDEN), "{page}");
    assert_eq!(form(UNKNOWN).await.0, 303);
    let id = world.store().listing().await.unwrap().webhooks[0].id.to_string();
    let (_, page) = admin.page_as(&cookie, &format!("/settings/webhooks/{id}?done=added-unresolved")).await;
    assert!(page.contains("Webhook added, but its host has no address for now."), "{page}");

    let run = |arguments: &[&str]| -> Output {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).envs(world.environment()).stdin(Stdio::null());
        tokio::task::block_in_place(|| command.output().unwrap())
    };
    for (verb, url, code, words) in [
        ([].as_slice(), INTERNAL, 2, FORBIDDEN),
        (&[], UNKNOWN, 0, NO_ADDRESS),
        (&[id.as_str()], INTERNAL, 2, FORBIDDEN),
        (&[id.as_str()], UNKNOWN, 0, NO_ADDRESS),
    ] {
        let name = if verb.is_empty() { "add" } else { "update" };
        let output = run(&[&["webhooks", name], verb, &["--url", url, "--events", "task.failed"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && errors.contains(words), "{name} {url}: {errors}");
    }
    let unchanged = run(&["webhooks", "update", &id, "--description", "d"]);
    assert!(unchanged.status.success() && unchanged.stderr.is_empty(), "{unchanged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_tells_an_internal_name_from_an_unknown_one_to_nobody() {
    let world = strict().await;
    let mut failures = Vec::new();
    let admin = world.admin().await;
    for url in [INTERNAL, UNKNOWN, "http://127.0.0.1:8080/", "http://nothing.invalid:25/"] {
        let mut webhook = world.unsaved("/", &[EventType::TaskFailed]);
        webhook.url = url.parse().unwrap();
        world.store().put(&webhook).await.unwrap();
        let (_, answer) = admin.call("POST", &format!("/api/webhooks/{}/test", webhook.id), None).await;
        let delivery = &answer["delivery"];
        let detail = delivery["errorDetail"].as_str().unwrap().replace(webhook.url.host_str().unwrap(), "HOST");
        failures.push((delivery["error"].as_str().unwrap().to_owned(), detail));
    }
    assert_eq!(failures[0], failures[1]);
    assert_eq!(failures[0].0, "dns");
    // The owner wrote these addresses and ports, so there is nothing to hide.
    assert!(failures[2].0 == "address_blocked" && failures[3].0 == "address_blocked", "{failures:?}");
    let (_, metrics) = admin.page("/metrics").await.unwrap();
    assert!(metrics.contains("optio_webhooks_name_failures_total{reason=\"forbidden\"} 1"), "{metrics}");
}
