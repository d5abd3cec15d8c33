//! The snippets of the verify page, each run with a real delivery.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use optio_webhooks::event::EventType;
use optio_webhooks::signature::{Signing, SigningSecret};
use serde_json::json;

use crate::harness::world::{SECRET, TOKEN};
use crate::harness::{World, eventually, skipped};

#[path = "../../src/admin/snippets/verify.rs"]
mod verify;

fn snippet(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/snippets").join(name)
}

/// Whether the snippet accepts `header` as the signature of `body`.
fn accepts(program: &str, arguments: &[&str], file: &str, header: &str, body: &[u8]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).arg(snippet(file)).args([header, SECRET]);
    exits_well(command, body)
}

/// Whether the command exits with 0 and not with 1. Another end is a mistake of the snippet.
fn exits_well(mut command: Command, input: &[u8]) -> bool {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(0 | 1)), "{command:?}: {status}");
    status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_snippet_accepts_a_real_delivery_and_nothing_else() {
    let world = World::new().await;
    let _worker = world.worker().await;
    world.webhook("/hook", &[EventType::TaskCompleted]).await;
    world.emit(EventType::TaskCompleted, 1).await;
    let request = world.receiver.arrived(1).await.remove(0);
    let (header, body) = (request.header("x-optio-signature"), &request.body);
    let mut other = body.to_vec();
    other[0] ^= 1;
    assert!(verify::is_genuine(SECRET, body, header));
    assert!(!verify::is_genuine(SECRET, &other, header) && !verify::is_genuine(SECRET, body, "sha256=zz"));
    for (program, arguments, file) in [
        ("node", &[][..], "verify.mjs"),
        ("python3", &[], "verify.py"),
        ("go", &["run"], "verify.go"),
        ("ruby", &[], "verify.rb"),
    ] {
        let version = if program == "go" { "version" } else { "--version" };
        if !Command::new(program).arg(version).output().is_ok_and(|output| output.status.success()) {
            skipped(&format!("{program} is missing, so its snippet was not run"));
            continue;
        }
        assert!(accepts(program, arguments, file, header, body), "{program}");
        assert!(!accepts(program, arguments, file, header, &other), "{program} accepted another body");
        assert!(!accepts(program, arguments, file, "sha256=00", body), "{program} accepted another signature");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_snippet_for_a_key_pair_accepts_a_real_delivery_and_nothing_else() {
    let world = World::new().await;
    let worker = world.worker().await;
    let draft = json!({ "url": world.receiver.url("/hook"), "events": ["task.completed"], "signing": "ed25519" });
    let (status, added) = worker.call("POST", "/api/webhooks", Some(draft)).await;
    assert_eq!(status, 201, "{added}");
    let key = added["webhook"]["publicKey"].as_str().unwrap();
    let page = format!("/settings/webhooks/{}", added["webhook"]["id"].as_str().unwrap());
    let cookie = worker.sign_in(TOKEN).await;
    for path in [page.clone(), format!("{page}/verify")] {
        let (_, shown) = worker.page_as(&cookie, &path).await;
        assert!(shown.contains(key), "{path}: {shown}");
    }
    world.emit(EventType::TaskCompleted, 1).await;
    let request = world.receiver.arrived(1).await.remove(0);
    if !Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success()) {
        skipped("node is missing, so the snippet for a key pair was not run");
        return;
    }
    let [id, at, signature] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| request.header(name));
    let verifies = |body: &[u8], at: &str, signature: &str, key: &str| {
        let mut command = Command::new("node");
        command.arg(snippet("verify-v1a.mjs")).args([id, at, signature, key]);
        exits_well(command, body)
    };
    let mut other = request.body.to_vec();
    other[0] ^= 1;
    let other_key = SigningSecret::generate(Signing::Ed25519).public_key().unwrap();
    assert!(verifies(&request.body, at, signature, key));
    assert!(verifies(&request.body, at, &format!("v1,AAAA {signature}"), key), "one of several");
    assert!(!verifies(&other, at, signature, key), "another body");
    assert!(!verifies(&request.body, "1", signature, key), "an old time");
    assert!(!verifies(&request.body, at, "v1a,AAAA", key), "another signature");
    assert!(!verifies(&request.body, at, signature, &other_key), "another key");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_in_the_readme_accepts_a_real_delivery_and_refuses_others() {
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skipped("python3 is missing, so the receiver in the README was not run");
    }
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let script = readme.split("```python\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut receiver = Command::new("python3")
        .args(["-c", &script])
        .envs([("WEBHOOK_SECRET", SECRET), ("PORT", &port.to_string())])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the receiver listens", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
    let world = World::new().await;
    let worker = world.worker().await;
    let statuses = [(SECRET, 204), ("another secret of the tests", 401)];
    for (secret, status) in statuses {
        let draft =
            json!({ "url": format!("http://127.0.0.1:{port}/"), "events": ["task.completed"], "secret": secret });
        let (_, added) = worker.call("POST", "/api/webhooks", Some(draft)).await;
        let id = added["webhook"]["id"].as_str().unwrap();
        let (_, tested) = worker.call("POST", &format!("/api/webhooks/{id}/test"), None).await;
        assert_eq!(tested["delivery"]["statusCode"], status, "{tested}");
    }
    receiver.kill().unwrap();
    let printed = String::from_utf8(receiver.wait_with_output().unwrap().stdout).unwrap();
    assert!(printed.ends_with("task.completed\n") && printed.lines().count() == 1, "{printed}");
}
