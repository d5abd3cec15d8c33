//! The verbs, their sentences and exit codes.

use std::process::{Command, Output, Stdio};

use optio_webhooks::event::EventType;
use serde_json::Value;

use crate::harness::worker::PROGRAM;
use crate::harness::{Reply, World};

fn call(world: &World, arguments: &[&str]) -> Output {
    call_with(world, arguments, &[])
}

fn call_with(world: &World, arguments: &[&str], more: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(world.environment()).envs(more.iter().copied()).stdin(Stdio::null());
    tokio::task::block_in_place(|| command.output().unwrap())
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complained(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_refused_with_the_key_the_value_and_what_is_allowed() {
    let world = World::new().await;
    for (variable, value, words) in [
        ("OPTIO_WEBHOOKS__DELIVERY__ATTEMPTS_MAX", "0", vec!["delivery.attempts_max = 0", "1 to 50"]),
        (
            "OPTIO_WEBHOOKS__WORKER__DRAIN_TIMEOUT",
            "11s",
            vec!["delivery.timeout = 10s", "up to 9s", "worker.drain_timeout = 11s"],
        ),
        ("OPTIO_WEBHOOKS__DELIVERY__TIMEOUT", "soon", vec!["delivery.timeout", "soon"]),
        ("OPTIO_WEBHOOKS__DELIVERY__TIMEUOT", "1s", vec!["timeuot", "timeout"]),
        ("OPTIO_WEBHOOKS__DELIVERY__ORDERING", "random", vec!["delivery.ordering", "random", "task", "none"]),
        (
            "OPTIO_WEBHOOKS__KAFKA__PROPERTIES__SECURITY_PROTOCOL",
            "carrier-pigeon",
            vec!["security.protocol", "carrier-pigeon"],
        ),
        ("OPTIO_WEBHOOKS__KAFKA__PROPERTIES__NO_SUCH_THING", "1", vec!["no.such.thing"]),
        ("OPTIO_WEBHOOKS__REDIS__URL", "http://redis", vec!["redis.url", "http://redis", "rediss://"]),
    ] {
        for verb in [["config", "check"].as_slice(), &["run"]] {
            let output = call_with(&world, verb, &[(variable, value)]);
            assert_eq!(output.status.code(), Some(78), "{variable}={value}: {}", complained(&output));
            for word in &words {
                assert!(complained(&output).contains(word), "{word:?} in {}", complained(&output));
            }
        }
    }
    assert_eq!(call(&world, &["config", "check"]).status.code(), Some(0));
    assert_eq!(call(&world, &["config", "chekc"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_masked_where_the_configuration_is_shown() {
    let world = World::new().await;
    let secrets =
        [("OPTIO_WEBHOOKS__ADMIN__TOKEN", "hunter2"), ("OPTIO_WEBHOOKS__KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2")];
    for arguments in [["config", "show"].as_slice(), &["config", "show", "--json"]] {
        let shown = printed(&call_with(&world, arguments, &secrets));
        assert!(shown.contains(&world.config().kafka.topic) && !shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_topic_that_forgets_before_its_delay_is_over_is_refused() {
    let mut world = World::new().await;
    assert_eq!(call(&world, &["topics", "check"]).status.code(), Some(0));
    // Longer waits than the topics were made for.
    world.set("delivery.retry.initial", "24h");
    world.set("delivery.retry.max", "7days");
    world.set("delivery.retry.multiplier", "7");
    world.set("delivery.age_max", "30days");
    world.set("topics.retry_retention_margin", "1s");
    for verb in [["topics", "check"].as_slice(), &["run"]] {
        let output = call(&world, verb);
        assert_eq!(output.status.code(), Some(78), "{}", complained(&output));
        assert!(complained(&output).contains("retention.ms"), "{}", complained(&output));
        assert!(complained(&output).contains(&world.names().retry(3)), "{}", complained(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_added_shown_changed_tested_and_removed() {
    let world = World::new().await;
    let json = |output: &Output| -> Value {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", complained(output)))
    };
    let url = world.receiver.url("/hook");
    let added = call(
        &world,
        &["webhooks", "add", "--url", &url, "--events", "task.failed,task.completed", "--secret", "s3cret", "--json"],
    );
    let webhook = &json(&added)["webhook"];
    let id = webhook["id"].as_str().unwrap();
    assert_eq!(
        (&webhook["secret"], &webhook["active"], &webhook["format"]),
        (&"••••••".into(), &true.into(), &"optio".into())
    );
    assert_eq!(webhook["events"], serde_json::json!(["task.completed", "task.failed"]));
    assert!(!printed(&added).contains("s3cret"));
    assert_eq!(json(&call(&world, &["webhooks", "list", "--json"]))["webhooks"][0], *webhook);

    let tested = call(&world, &["webhooks", "test", id, "--json"]);
    let delivery = &json(&tested)["delivery"];
    assert_eq!(
        (&delivery["success"], &delivery["statusCode"], &delivery["attempt"]),
        (&true.into(), &200.into(), &1.into())
    );
    assert_eq!(delivery["webhookId"], id);
    assert_eq!(delivery["payload"]["event"], "task.completed");
    assert_eq!(world.receiver.requests()[0].delivery(), delivery["deliveryId"].as_str().unwrap());
    world.receiver.answer(|_| Reply::status(404));
    let failed = call(&world, &["webhooks", "test", id, "--event", "task.failed"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(printed(&failed).contains("failed: status 404"));

    let updated = call(
        &world,
        &["webhooks", "update", id, "--events", "review.completed", "--no-secret", "--active", "false", "--json"],
    );
    let webhook = &json(&updated)["webhook"];
    assert_eq!(
        (&webhook["secret"], &webhook["active"], &webhook["url"]),
        (&Value::Null, &false.into(), &url.as_str().into())
    );
    assert!(printed(&call(&world, &["webhooks", "list"])).contains("inactive"));
    assert!(call(&world, &["webhooks", "remove", id]).status.success());
    let gone = call(&world, &["webhooks", "show", id]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(complained(&gone).contains(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_could_not_be_sent_to_is_not_saved() {
    let world = World::new().await;
    let strict =
        [("OPTIO_WEBHOOKS__DELIVERY__ALLOW_HTTP", "false"), ("OPTIO_WEBHOOKS__DELIVERY__ALLOW_NETWORKS", "[]")];
    for (url, events, word) in [
        ("http://example.com/", "task.completed", "https://"),
        ("https://10.0.0.1/", "task.completed", "10.0.0.1 is not public"),
        ("https://me:pw@example.com/", "task.completed", "user name or password"),
        ("not a url", "task.completed", "not a url"),
        ("https://example.com/", "task.exploded", "task.completed"),
    ] {
        let output = call_with(&world, &["webhooks", "add", "--url", url, "--events", events], &strict);
        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(complained(&output).contains(word), "{word:?} in {}", complained(&output));
    }
    assert!(printed(&call(&world, &["webhooks", "list"])).starts_with("no webhooks yet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn emit_writes_samples_and_files_and_refuses_what_could_not_be_read() {
    let world = World::new().await;
    world.webhook("/", &EventType::ALL).await;
    let _worker = world.worker().await;
    let emitted = call(&world, &["emit", "--event", "task.needs_attention", "--count", "3", "--title", "Look here"]);
    assert_eq!(printed(&emitted).lines().count(), 3, "{}", complained(&emitted));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("transitions.ndjson");
    let lines =
        format!("{}\n{}\n", World::transition(EventType::TaskFailed), World::transition(EventType::ReviewCompleted));
    std::fs::write(&file, lines).unwrap();
    assert!(call(&world, &["emit", "--file", file.to_str().unwrap()]).status.success());
    let requests = world.receiver.arrived(5).await;
    let mut events: Vec<&str> = requests.iter().map(|request| request.header("x-optio-event")).collect();
    events.sort_unstable();
    assert_eq!(
        events,
        ["review.completed", "task.failed", "task.needs_attention", "task.needs_attention", "task.needs_attention"]
    );

    std::fs::write(&file, format!("{}\n{{\"taskId\": 1}}", World::transition(EventType::TaskFailed))).unwrap();
    let refused = call(&world, &["emit", "--file", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(complained(&refused).contains("transition 2") && complained(&refused).contains("nothing was written"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_comes_out_as_it_should_and_leaves_nothing_behind() {
    let output = tokio::task::block_in_place(|| Command::new(PROGRAM).args(["dev", "--once"]).output().unwrap());
    assert!(output.status.success(), "{}{}", printed(&output), complained(&output));
    assert!(printed(&output).contains("5 events, 24 attempts (signatures: all verified), 10 delivered"));
}
