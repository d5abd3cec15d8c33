//! Everything that the page does, as commands: over the API of a server, and on Kafka and Redis.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use optio_webhooks::event::EventType;
use serde_json::{Value, json};

use crate::harness::worker::{PROGRAM, Worker};
use crate::harness::world::{TOKEN, shared_signature};
use crate::harness::{Reply, World, eventually};

/// Runs `api` with these arguments: at `server`, or in the process itself. Returns its exit code, its answer, and what it
/// complained of.
fn api(world: &World, server: Option<&str>, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("api").args(arguments);
    match server {
        // The settings name a Kafka and a Redis that nobody has, so the answers come from the server.
        Some(server) => command.args(["--server", server]).env("OPTIO_WEBHOOKS_TOKEN", TOKEN),
        None => command.envs(world.environment()),
    };
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), answer, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn done(world: &World, server: Option<&str>, arguments: &[&str]) -> Value {
    let (code, answer, complaint) = api(world, server, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {complaint}{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_do_the_same_at_a_server_and_on_kafka_and_redis() {
    let world = World::with(&[("delivery.attempts_max", "1"), ("admin.base_path", "/hooks")]).await;
    let worker = world.worker().await;
    let address = format!("{}/hooks", worker.address());
    for (at, server) in [Some(address.as_str()), None].into_iter().enumerate() {
        let path = format!("/{at}");
        let id = world.webhook(&path, &[EventType::TaskFailed]).await.to_string();
        let run = |arguments: &[&str]| done(&world, server, arguments);
        world.receiver.answer(move |request| {
            Reply::status(if request.attempt() == 1 && request.path == path { 500 } else { 200 })
        });
        let listed = run(&["list"])["webhooks"].as_array().unwrap().iter().any(|webhook| webhook["id"] == id.as_str());
        assert!(listed && run(&["show", &id])["webhook"]["active"] == true);
        world.emit(EventType::TaskFailed, 1).await;
        world.dead_lettered(at + 1).await;
        let attempt = eventually("the attempt is in the log", async || {
            let log = run(&["deliveries", &id, "--failed"]);
            log["deliveries"].as_array()?.first().cloned()
        })
        .await;
        let delivery = attempt["deliveryId"].as_str().unwrap();
        let found = run(&["search", delivery]);
        assert_eq!((found["deliveries"].as_array().unwrap().len(), found["searched"] == found["webhooks"]), (1, true));
        let letters = run(&["dead-letters", "--webhook", &id]);
        assert_eq!(letters["deadLetters"].as_array().unwrap().len(), 1, "{letters}");

        world.receiver.answer(|_| Reply::status(200));
        assert_eq!(run(&["replay", "--webhook", &id])["replay"]["replayed"], 1);
        assert_eq!(run(&["redeliver", &id, delivery])["deliveryId"], delivery);
        assert_eq!(run(&["test", &id])["delivery"]["success"], true);
        assert!(run(&["rotate", &id, "--overlap", "1h"])["generatedSecret"].as_str().unwrap().starts_with("whsec_"));
        assert_eq!(run(&["pause", &id, "--hold"])["webhook"]["hold"], true);
        assert_eq!(run(&["pause", &id])["webhook"]["active"], false);
        assert_eq!(run(&["resume", &id])["webhook"]["active"], true);
        let activity = run(&["activity", &id])["hours"].as_array().unwrap().clone();
        let sum = |field: &str| activity.iter().filter_map(|hour| hour[field].as_u64()).sum::<u64>();
        assert!((sum("failed"), activity.len()) == (1, 168) && sum("delivered") >= 2, "{:?}", activity.last());
        for hour in activity {
            let has_attempts = hour["delivered"] != 0 || hour["failed"] != 0;
            let times = hour["medianMs"].as_f64().zip(hour["p95Ms"].as_f64());
            assert!(has_attempts == times.is_some_and(|(median, p95)| 0.0 < median && median <= p95), "{hour}");
        }
        assert!(run(&["call", "GET", "/api/status/trend"])["samples"].is_array());
        assert_eq!(run(&["missed", &id])["events"], 0);
        assert_eq!(run(&["send-missed", &id])["replay"]["state"], "done");
        assert_eq!(run(&["try-filter", r#"{"field": "taskId", "exists": true}"#])["matching"], at as u64 + 1);
        assert!(run(&["status"])["workers"].as_array().is_some_and(|workers| workers.len() == 1));
        let audit = run(&["call", "GET", "/api/audit?limit=1"]);
        assert!(audit.to_string().contains(if server.is_some() { "bearer" } else { "command_line" }), "{audit}");
    }
    let missing = "0190c1b2-7c4e-7d3a-9b1e-2f6a8c9d0e1f";
    for server in [Some(address.as_str()), None] {
        let (code, _, complaint) = api(&world, server, &["show", missing]);
        assert!(code == Some(1) && complaint.contains("no webhook"), "{complaint}");
        let (code, _, complaint) = api(&world, server, &["deliveries", missing, "--limit", "0"]);
        assert!(code == Some(2) && complaint.contains("limit"), "{complaint}");
    }
    let (code, _, complaint) = api(&world, Some("http://127.0.0.1:9/"), &["list"]);
    assert!(code == Some(1) && complaint.contains("doesn't answer"), "{complaint}");
    let wrong = ["list", "--token", "a wrong token of some length"];
    let (code, _, complaint) = api(&world, Some(&address), &wrong);
    assert!(code == Some(1) && complaint.contains("token"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_developer_gets_events_at_a_local_server_without_a_webhook() {
    let world = World::new().await;
    let worker = world.worker().await;
    let to = world.receiver.url("/local");
    let mut listening = Command::new(PROGRAM)
        .args(["listen", "--forward", &to, "--server", &worker.address(), "--event", "task.failed"])
        .env("OPTIO_WEBHOOKS_TOKEN", TOKEN)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut err) =
        (BufReader::new(listening.stdout.take().unwrap()), BufReader::new(listening.stderr.take().unwrap()));
    let (mut said, mut noted) = (String::new(), String::new());
    tokio::task::block_in_place(|| {
        out.read_line(&mut said).unwrap();
        err.read_line(&mut noted).unwrap();
    });
    assert!(noted.contains("forwarding the events of"), "{noted}");
    let secret = said.trim().rsplit(' ').next().unwrap().to_owned();
    world.emit(EventType::TaskCompleted, 1).await;
    world.emit(EventType::TaskFailed, 2).await;
    let requests = world.receiver.arrived(2).await;
    for request in &requests {
        assert_eq!((request.path.as_str(), request.header("x-optio-event")), ("/local", "task.failed"));
        assert_eq!(request.header("x-optio-signature"), shared_signature(&secret, &request.body));
    }
    let mut line = String::new();
    tokio::task::block_in_place(|| out.read_line(&mut line).unwrap());
    assert!(line.starts_with("task.failed") && line.contains("-> 200"), "{line}");
    assert_eq!(worker.call("GET", "/api/webhooks", None).await.1["webhooks"], json!([]));
    // Another machine's mistake is told in a sentence, and at once.
    let wrong = Command::new(PROGRAM)
        .args(["listen", "--forward", &to, "--server", &worker.address(), "--token", "a wrong token of some length"])
        .output();
    let wrong = tokio::task::block_in_place(|| wrong.unwrap());
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("answers 401"));
    listening.kill().unwrap();
    listening.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_across_webhooks_with_each_attempt() {
    let world = World::new().await;
    let worker: Worker = world.worker().await;
    for path in ["/flaky", "/steady"] {
        world.webhook(path, &[EventType::TaskFailed]).await;
    }
    world
        .receiver
        .answer(|request| Reply::status(if request.path == "/flaky" && request.attempt() == 1 { 503 } else { 200 }));
    let mut transition = World::transition(EventType::TaskFailed);
    transition["id"] = json!("an event/with a strange id");
    world.write("k", Some(transition.to_string().as_bytes())).await;
    world.receiver.arrived(3).await;
    world.settled().await;
    let cookie = worker.sign_in(TOKEN).await;
    let (status, page) = worker.page_as(&cookie, "/deliveries?search=503").await;
    assert!(status == 200 && page.contains("/events/an%20event%2Fwith%20a%20strange%20id"), "{page}");
    let (status, page) = worker.page_as(&cookie, "/events/an%20event%2Fwith%20a%20strange%20id").await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("Failed 503") && page.matches("Delivered 200").count() == 2, "{page}");
    assert!(page.contains("attempt 2") && page.contains("/flaky") && page.contains("/steady"));
    assert_eq!(worker.page_as(&cookie, "/events/unknown").await.0, 404);
    let (_, found) = worker.call("GET", "/api/deliveries?search=503", None).await;
    assert_eq!(found["deliveries"].as_array().unwrap().len(), 1, "{found}");
}
