//! The rights in Kafka that `docs/operations.md` gives to each kind of process, on a broker that allows nothing else.

use std::process::Command;

use optio_webhooks::event::EventType;
use optio_webhooks::kafka::clients;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;

use crate::harness::acl;
use crate::harness::service::Service;
use crate::harness::worker::{PROGRAM, Worker};
use crate::harness::{Reply, World, eventually};

/// Signs in as `user`, whose password is the same text.
fn sign_in(world: &mut World, user: &str) {
    world.set("kafka.properties.sasl_username", user);
    world.set("kafka.properties.sasl_password", user);
}

/// Runs a command as `user`, and returns its standard output.
fn run(world: &mut World, user: &str, arguments: &[&str]) -> String {
    sign_in(world, user);
    let mut command = Command::new(PROGRAM);
    let output = command.args(arguments).envs(world.environment()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Writes a record as `user`.
async fn write(world: &mut World, user: &str, topic: &str) -> Result<(), KafkaError> {
    sign_in(world, user);
    let producer: FutureProducer = clients::producer(&world.config()).create().unwrap();
    let record = FutureRecord::to(topic).key("k").payload("{}");
    producer.send(record, std::time::Duration::from_secs(30)).await.map(drop).map_err(|(error, _)| error)
}

fn is_refused(written: &Result<(), KafkaError>) -> bool {
    matches!(written, Err(KafkaError::MessageProduction(RDKafkaErrorCode::TopicAuthorizationFailed)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_in_kafka_suffice_and_close_the_retry_topics_to_producers() {
    let kafka = Service::kafka_with_users();
    let mut world = World::with(&[
        ("kafka.brokers", &kafka.address),
        ("kafka.topic", "task-events"),
        ("kafka.group", "optio-webhooks"),
        ("kafka.properties.security_protocol", "SASL_PLAINTEXT"),
        ("kafka.properties.sasl_mechanisms", "PLAIN"),
        ("kafka.properties.sasl_username", "broker"),
        ("kafka.properties.sasl_password", "broker"),
        ("delivery.attempts_max", "3"),
    ])
    .await;
    let names = world.names();
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let rules = acl::allow(&clients::producer(&world.config()).create().unwrap(), &documented);
    assert!(rules > 15, "operations.md has the commands: {rules}");

    let webhook = world.webhook("/", &EventType::TASKS).await;
    world.receiver.answer(|_| Reply::status(500));
    sign_in(&mut world, "worker");
    let mut worker = Worker::start_with(&["run", "--only", "worker"], &world.environment());
    sign_in(&mut world, "admin");
    let mut admin = Worker::start_with(&["run", "--only", "admin"], &world.environment());
    worker.readiness(true).await;
    admin.readiness(true).await;
    let listed = run(&mut world, "admin", &["topics", "check"]);
    assert!(!listed.contains("unchecked"), "{listed}");

    run(&mut world, "producer", &["emit", "--event", "task.failed"]);
    // Two retry tiers are written and read before the dead letter.
    world.receiver.arrived(3).await;
    eventually("the dead letter is listed", async || {
        let (status, letters) = admin.call("GET", "/api/dead-letters", None).await;
        (status == 200 && letters.to_string().contains("exhausted")).then_some(())
    })
    .await;
    world.receiver.answer(|_| Reply::status(200));
    assert!(run(&mut world, "admin", &["replay", "--all", "--yes"]).contains("1 replayed"));
    world.receiver.arrived(4).await;
    let id = webhook.to_string();
    let rewound = run(&mut world, "admin", &["replay", "--from-log", "--webhook", &id, "--since", "1h"]);
    assert!(rewound.contains("1 sent") || rewound.contains("1 replayed"), "{rewound}");
    world.receiver.arrived(5).await;
    let (status, deliveries) = admin.call("GET", &format!("/api/webhooks/{id}/deliveries"), None).await;
    let entry =
        deliveries["deliveries"][0]["id"].as_str().unwrap_or_else(|| panic!("{status} {deliveries}")).to_owned();
    let (status, answer) = admin.call("POST", &format!("/api/webhooks/{id}/deliveries/{entry}/redeliver"), None).await;
    assert_eq!(status, 202, "{answer}");
    world.receiver.arrived(6).await;
    let (status, page) = admin.call("GET", "/api/status", None).await;
    assert!(status == 200 && !page.to_string().contains("uthorization"), "{page}");

    for topic in [names.retry(1), names.replays(), names.dead_letters()] {
        let written = write(&mut world, "producer", &topic).await;
        assert!(is_refused(&written), "{topic}: {written:?}");
    }
    for (user, topic) in [("worker", names.events().to_owned()), ("admin", names.retry(1))] {
        let written = write(&mut world, user, &topic).await;
        assert!(is_refused(&written), "{user} {topic}: {written:?}");
    }
    for process in [&mut worker, &mut admin] {
        assert!(process.terminate().await.success());
        assert!(!process.log().contains("uthorization"), "{}", process.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_rights_lists_exactly_the_rules_that_are_missing() {
    let kafka = Service::kafka_with_users();
    let mut world = World::with(&[
        ("kafka.brokers", &kafka.address),
        ("kafka.topic", "task-events"),
        ("kafka.group", "optio-webhooks"),
        ("kafka.properties.security_protocol", "SASL_PLAINTEXT"),
        ("kafka.properties.sasl_mechanisms", "PLAIN"),
        ("kafka.properties.sasl_username", "broker"),
        ("kafka.properties.sasl_password", "broker"),
        ("delivery.attempts_max", "3"),
    ])
    .await;
    let operator = clients::producer(&world.config()).create().unwrap();
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let without_dead_letters: Vec<&str> =
        documented.lines().filter(|line| !(line.contains("User:worker") && line.contains("task-events.dlq"))).collect();
    acl::allow(&operator, &without_dead_letters.join("\n"));
    for role in ["admin", "producer"] {
        let listed = run(&mut world, role, &["topics", "check", "--acls", role]);
        assert!(listed.contains("allowed") && !listed.contains("refused"), "{role}: {listed}");
    }
    let mut check = |user: &str, arguments: &[&str]| {
        sign_in(&mut world, user);
        let arguments = [&["topics", "check", "--acls"], arguments].concat();
        let output = Command::new(PROGRAM).args(arguments).envs(world.environment()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, listed, explained) = check("worker", &["worker"]);
    assert_eq!(code, Some(78), "{listed} {explained}");
    assert_eq!(listed.matches("refused").count(), 1, "{listed}");
    assert!(
        explained.contains("topic task-events.dlq: the broker doesn't allow Write, DescribeConfigs"),
        "{explained}"
    );
    // What the broker lets everybody see says nothing about groups.
    let (code, listed, _) = check("producer", &["run", "--json"]);
    assert_eq!(code, Some(78), "{listed}");
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let groups = listed["rights"].as_array().unwrap().iter().filter(|one| one["resource"] == "group");
    assert!(groups.clone().count() == 3 && groups.clone().all(|one| one["missing"] == one["needed"]), "{listed:#}");

    // The rules that it prints are those that are missing.
    let (_, _, explained) = check("producer", &[]);
    let rules: Vec<String> = explained
        .lines()
        .filter_map(|line| Some(line.trim().split_once(" --add ")?.1.replace("User:NAME", "User:producer")))
        .map(|rule| format!("$acls {rule}"))
        .collect();
    acl::allow(&operator, &rules.join("\n"));
    let (code, listed, explained) = check("producer", &[]);
    assert_eq!(code, Some(0), "{listed} {explained}");
    assert!(!listed.contains("refused") && !listed.contains("unchecked"), "{listed}");
}
