//! The example producers, the import of Optio's webhooks, and the checks of messages before they are written.

use std::path::{Path, PathBuf};
use std::process::Command;

use optio_webhooks::event::EventType;
use serde_json::Value;
use uuid::Uuid;

use crate::harness::worker::PROGRAM;
use crate::harness::{Reply, World, skipped};

fn example(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/producers").join(language)
}

/// A folder that stays there between runs, for what a package manager fetches.
fn cache(name: &str) -> PathBuf {
    let root = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let root = root.or_else(|| std::env::home_dir().map(|home| home.join(".cache"))).expect("there is a home");
    let folder = root.join("optio-webhooks/producers").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a step that may be impossible on this machine. Returns false, loudly, if it failed.
fn prepared(language: &str, command: &mut Command) -> bool {
    let outcome = command.output();
    let problem = match outcome {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    skipped(&format!("the {language} producer: {}", problem.lines().last().unwrap_or("no reason")));
    false
}

/// Has `producer` write a transition, and expects the worker to deliver it.
async fn delivers(mut producer: Command) {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let _worker = world.worker().await;
    let task = Uuid::now_v7().to_string();
    let config = world.config();
    producer.args([&task, "running", "completed"]);
    producer.env("KAFKA_BROKERS", &config.kafka.brokers).env("KAFKA_TOPIC", &config.kafka.topic);
    let output = producer.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let request = world.receiver.arrived(1).await.remove(0);
    let body = request.json();
    assert_eq!((body["event"].as_str(), body["taskId"].as_str()), (Some("task.completed"), Some(task.as_str())));
    assert!(body["task"]["title"].as_str().unwrap().starts_with("Fix login"));
    let record = world.records(world.names().events()).remove(0);
    use rdkafka::Message as _;
    assert_eq!(record.key(), Some(task.as_bytes()));
    // The message is valid as it stands: no field is lost.
    let (code, printed) = run_with_input(&["emit", "--validate", "-"], record.payload().unwrap(), &[]);
    assert_eq!(code, Some(0), "{printed}");
}

/// Runs the program, and returns its exit code and everything that it printed.
fn run_with_input(arguments: &[&str], input: &[u8], environment: &[(String, String)]) -> (Option<i32>, String) {
    use std::io::Write as _;
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(environment.iter().cloned());
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_producer_is_delivered() {
    let packages = cache("python");
    if !packages.join("confluent_kafka").exists() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&packages).arg("confluent-kafka==2.12.1");
        if !prepared("Python", &mut pip) {
            return;
        }
    }
    let mut producer = Command::new("python3");
    producer.arg(example("python").join("producer.py")).env("PYTHONPATH", packages);
    delivers(producer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_producer_is_delivered() {
    let folder = cache("typescript");
    for file in ["package.json", "package-lock.json", "tsconfig.json", "producer.ts"] {
        std::fs::copy(example("typescript").join(file), folder.join(file)).unwrap();
    }
    let mut install = Command::new("npm");
    install.args(["ci", "--ignore-scripts", "--silent", "--no-audit", "--no-fund", "--prefer-offline"]);
    if !prepared("TypeScript", install.current_dir(&folder)) {
        return;
    }
    let built = Command::new("npm").args(["run", "--silent", "build"]).current_dir(&folder).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stdout));
    let mut producer = Command::new("node");
    producer.arg(folder.join("build/producer.js"));
    delivers(producer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_go_producer_is_delivered() {
    let program = cache("go").join("producer");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(".").current_dir(example("go"));
    if prepared("Go", &mut build) {
        delivers(Command::new(program)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_java_producer_is_delivered() {
    // The jars are those of the broker that the tests run, if they run one without Docker.
    let jars = cache("").ancestors().nth(1).unwrap().join("kafka-4.3.1");
    if !jars.join("kafka-clients-4.3.1.jar").exists() {
        return skipped("the Java producer: the jars of Kafka are not in the cache");
    }
    // A program in one source file is compiled in memory, which needs the compiler of a JDK.
    if !prepared("Java", Command::new("java").args(["--list-modules"]))
        || !Command::new("javac").arg("-version").output().is_ok_and(|output| output.status.success())
    {
        return skipped("the Java producer: there is no Java compiler");
    }
    let mut producer = Command::new("java");
    producer.arg("-cp").arg(format!("{}/*", jars.display())).arg(example("java").join("Producer.java"));
    delivers(producer).await;
}

#[test]
fn messages_are_checked_without_a_broker() {
    let good = r#"{"taskId":"t","toState":"failed"}"#;
    let (code, printed) = run_with_input(&["emit", "--validate", "-"], format!("{good}\n{good}").as_bytes(), &[]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("message 2: valid, task.failed") && printed.contains("all 2 messages are valid"),
        "{printed}"
    );
    let bad = r#"{"toState":"failed"} {"taskId":"t","toState":"failed","timestamp":"soon"} {"taskId":"t","toState":"queued"} {"#;
    let (code, printed) = run_with_input(&["emit", "--validate", "-"], bad.as_bytes(), &[]);
    assert_eq!(code, Some(1), "{printed}");
    for line in [
        "message 1: would be dead-lettered: taskId is missing or null; text is needed",
        "  /taskId is missing or null; text is needed",
        "message 2: task.failed, but not all of it arrives",
        "  /timestamp is text that can't be read as such; RFC 3339",
        "message 3: valid, but its state is no event",
        "message 4: would be dead-lettered: is not JSON",
        "3 of 4 messages are not valid; nothing was written",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    let (code, printed) = run_with_input(&["emit", "--schema"], b"", &[]);
    let schema: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, schema["required"][1].as_str()), (Some(0), Some("toState")));
    assert_eq!(run_with_input(&["emit", "--validate", "-"], b"", &[]).0, Some(2), "an empty file is a mistake");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_keeps_ids_and_secrets_and_can_be_repeated() {
    let world = World::new().await;
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
    let url = world.receiver.url("/classic");
    let csv = format!(
        "id,url,events,secret,description,active,created_at\n{id},{url},\"[\"\"task.completed\"\",\"\"workflow_run.failed\"\"]\",{},from Optio,t,2025-03-26 10:12:34+00\n{other},ftp://example.com/,{{task.failed}},,,t,\n",
        crate::harness::world::SECRET
    );
    let import = |arguments: &[&str]| {
        let arguments = [&["webhooks", "import", "-"], arguments].concat();
        run_with_input(&arguments, csv.as_bytes(), &world.environment())
    };
    let (code, printed) = import(&["--dry-run"]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("1 would be added, 0 there already, 1 refused"), "{printed}");
    assert!(printed.contains("left out workflow_run.failed") && printed.contains("row 2"), "{printed}");
    assert!(!printed.contains(crate::harness::world::SECRET), "{printed}");
    assert!(world.store().all().await.unwrap().1.is_empty(), "a dry run changes nothing");
    let (_, printed) = import(&[]);
    assert!(printed.contains("1 added, 0 there already, 1 refused"), "{printed}");
    let before = world.store().all().await.unwrap();
    let (_, printed) = import(&[]);
    assert!(printed.contains("0 added, 1 there already, 1 refused"), "{printed}");
    assert_eq!(world.store().all().await.unwrap(), before, "a second import changes nothing");
    let webhook = &before.1[0];
    assert_eq!((webhook.id.0, webhook.created_at.as_str()), (id, "2025-03-26T10:12:34.000Z"));

    // The receiver gets what Optio's own worker sends: the body, and the bare hex of its signature.
    let _worker = world.worker().await;
    world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
    world.emit(EventType::TaskCompleted, 1).await;
    for request in world.receiver.arrived(2).await {
        let body = request.json();
        assert_eq!(body["data"]["fromState"], "pr_opened", "{body}");
        assert_eq!(body["data"]["toState"], "completed", "{body}");
        let signature = crate::harness::world::shared_signature(crate::harness::world::SECRET, &request.body);
        assert_eq!(Some(request.header("x-optio-signature")), signature.strip_prefix("sha256="));
        assert!(request.header("webhook-signature").starts_with("v1,"));
    }
}
