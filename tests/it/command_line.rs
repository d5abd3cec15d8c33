//! The commands of the command line: their output and exit codes.

use std::process::{Command, Output, Stdio};

use optio_webhooks::event::EventType;
use serde_json::Value;

use crate::harness::worker::PROGRAM;
use crate::harness::{Reply, World};

fn run(world: &World, arguments: &[&str]) -> Output {
    run_with(world, arguments, &[])
}

fn run_with(world: &World, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(world.environment()).envs(variables.iter().copied()).stdin(Stdio::null());
    tokio::task::block_in_place(|| command.output().unwrap())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_setting_is_refused_with_its_key_value_and_allowed_values() {
    let world = World::new().await;
    for (variable, value, words) in [
        ("OPTIO_WEBHOOKS__DELIVERY__ATTEMPTS_MAX", "0", vec!["delivery.attempts_max = 0", "1 to 50"]),
        (
            "OPTIO_WEBHOOKS__WORKER__DRAIN_TIMEOUT",
            "11s",
            vec!["delivery.timeout = 10s", "at most 9s", "worker.drain_timeout = 11s"],
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
            let output = run_with(&world, verb, &[(variable, value)]);
            assert_eq!(output.status.code(), Some(78), "{variable}={value}: {}", stderr(&output));
            for word in &words {
                assert!(stderr(&output).contains(word), "{word:?} in {}", stderr(&output));
            }
        }
    }
    let checked = run(&world, &["config", "check"]);
    assert_eq!((checked.status.code(), stderr(&checked).as_str()), (Some(0), ""));
    let empty = [("OPTIO_WEBHOOKS__SECRETS__KEYS", ""), ("OPTIO_WEBHOOKS__ADMIN__TOKEN", "")];
    let checked = run_with(&world, &["config", "check"], &empty);
    assert_eq!((checked.status.code(), stdout(&checked).as_str()), (Some(0), "ok\n"));
    let warnings = stderr(&checked);
    assert!(warnings.contains("no sealing key") && warnings.contains("no token"), "{warnings}");
    let checked = run_with(&world, &["config", "check", "--only", "worker"], &empty);
    assert!(!stderr(&checked).contains("no token"), "a worker alone has no page: {}", stderr(&checked));
    assert_eq!(run(&world, &["config", "chekc"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn config_show_masks_secrets() {
    let world = World::new().await;
    let secrets = [
        ("OPTIO_WEBHOOKS__ADMIN__TOKEN", "hunter2 hunter2 hunter2"),
        ("OPTIO_WEBHOOKS__KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
    ];
    for arguments in [["config", "show"].as_slice(), &["config", "show", "--json"]] {
        let shown = stdout(&run_with(&world, arguments, &secrets));
        assert!(shown.contains(&world.config().kafka.topic) && !shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_topic_with_less_retention_than_its_delay_is_refused() {
    let mut world = World::new().await;
    assert_eq!(run(&world, &["topics", "check"]).status.code(), Some(0));
    // These delays are longer than the retention with which the topics were created.
    world.set("delivery.retry.initial", "24h");
    world.set("delivery.retry.max", "7days");
    world.set("delivery.retry.multiplier", "7");
    world.set("delivery.age_max", "30days");
    world.set("topics.retry_retention_margin", "1s");
    for verb in [["topics", "check"].as_slice(), &["run"]] {
        let output = run(&world, verb);
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        assert!(stderr(&output).contains("retention.ms"), "{}", stderr(&output));
        assert!(stderr(&output).contains(&world.names().retry(3)), "{}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_adds_lists_tests_updates_and_removes_webhooks() {
    let world = World::new().await;
    let json = |output: &Output| -> Value {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(output)))
    };
    let url = world.receiver.url("/hook");
    let added = run(
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
    assert!(!stdout(&added).contains("s3cret"));
    assert_eq!(json(&run(&world, &["webhooks", "list", "--json"]))["webhooks"][0], *webhook);

    let tested = run(&world, &["webhooks", "test", id, "--json"]);
    let delivery = &json(&tested)["delivery"];
    assert_eq!(
        (&delivery["success"], &delivery["statusCode"], &delivery["attempt"]),
        (&true.into(), &200.into(), &1.into())
    );
    assert_eq!(delivery["webhookId"], id);
    assert_eq!(delivery["payload"]["event"], "task.completed");
    assert_eq!(world.receiver.requests()[0].delivery(), delivery["deliveryId"].as_str().unwrap());
    world.receiver.answer(|_| Reply::status(404));
    let failed = run(&world, &["webhooks", "test", id, "--event", "task.failed"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stdout(&failed).contains("failed: status 404"));

    let updated = run(
        &world,
        &["webhooks", "update", id, "--events", "review.completed", "--no-secret", "--active", "false", "--json"],
    );
    let webhook = &json(&updated)["webhook"];
    assert_eq!(
        (&webhook["secret"], &webhook["active"], &webhook["url"]),
        (&Value::Null, &false.into(), &url.as_str().into())
    );
    assert!(stdout(&run(&world, &["webhooks", "list"])).contains("inactive"));
    assert!(run(&world, &["webhooks", "remove", id]).status.success());
    let gone = run(&world, &["webhooks", "show", id]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_with_a_forbidden_url_or_unknown_event_is_not_saved() {
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
        let output = run_with(&world, &["webhooks", "add", "--url", url, "--events", events], &strict);
        assert_eq!(output.status.code(), Some(2), "{url}");
        assert!(stderr(&output).contains(word), "{word:?} in {}", stderr(&output));
    }
    assert!(stdout(&run(&world, &["webhooks", "list"])).starts_with("no webhooks yet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn emit_writes_samples_or_a_file_and_refuses_invalid_transitions() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let _worker = world.worker().await;
    let emitted = run(&world, &["emit", "--event", "task.needs_attention", "--count", "3", "--title", "Look here"]);
    assert_eq!(stdout(&emitted).lines().count(), 3, "{}", stderr(&emitted));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("transitions.ndjson");
    let lines =
        format!("{}\n{}\n", World::transition(EventType::TaskFailed), World::transition(EventType::ReviewCompleted));
    std::fs::write(&file, lines).unwrap();
    assert!(run(&world, &["emit", "--file", file.to_str().unwrap()]).status.success());
    let requests = world.receiver.arrived(5).await;
    let mut events: Vec<&str> = requests.iter().map(|request| request.header("x-optio-event")).collect();
    events.sort_unstable();
    assert_eq!(
        events,
        ["review.completed", "task.failed", "task.needs_attention", "task.needs_attention", "task.needs_attention"]
    );

    std::fs::write(&file, format!("{}\n{{\"taskId\": 1}}", World::transition(EventType::TaskFailed))).unwrap();
    let refused = run(&world, &["emit", "--file", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("transition 2") && stderr(&refused).contains("nothing was written"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_the_expected_numbers() {
    let output = tokio::task::block_in_place(|| Command::new(PROGRAM).args(["dev", "--once"]).output().unwrap());
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("5 events, 24 attempts (signatures: all verified), 10 delivered"));
}

#[test]
fn shells_accept_their_completions() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let output = Command::new(PROGRAM).args(["completions", shell]).output().unwrap();
        assert!(output.status.success() && stdout(&output).contains("replay"));
        let script = folder.path().join(shell);
        std::fs::write(&script, &output.stdout).unwrap();
        let checked = Command::new(shell).arg(check).arg(&script).output();
        let checked = checked.unwrap_or_else(|error| panic!("{shell} is needed for this test: {error}"));
        assert!(checked.status.success() && checked.stderr.is_empty(), "{shell}: {}", stderr(&checked));
    }
    let refused = Command::new(PROGRAM).args(["completions", "cmd"]).output().unwrap();
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("bash"), "{}", stderr(&refused));
}

#[test]
fn there_is_a_manual_page_for_each_command_without_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM).arg("man").arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for name in ["optio-webhooks", "optio-webhooks-run", "optio-webhooks-replay", "optio-webhooks-webhooks-import"] {
        assert!(folder.path().join(format!("{name}.1")).exists(), "{name} is missing");
    }
    for page in std::fs::read_dir(folder.path()).unwrap() {
        let page = page.unwrap().path();
        let checked = Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&page).output();
        let checked = checked.unwrap_or_else(|error| panic!("mandoc is needed for this test: {error}"));
        assert!(checked.status.success(), "{}: {}", page.display(), stdout(&checked));
    }
}
