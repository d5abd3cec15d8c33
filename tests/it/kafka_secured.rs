//! Kafka as people have it: TLS, passwords, tokens, client certificates and access control lists, all at once.

use std::process::Command;

use optio_webhooks::event::EventType;
use optio_webhooks::kafka::clients;

use crate::harness::acl;
use crate::harness::secured_kafka::SecuredKafka;
use crate::harness::worker::{PROGRAM, Worker};
use crate::harness::{Reply, World};

/// The settings of a process that signs in as a user.
type SignIn = fn(&SecuredKafka, &str) -> Vec<(&'static str, String)>;

fn environment(world: &World, settings: &[(&'static str, String)]) -> Vec<(String, String)> {
    let mut environment = world.environment();
    environment.extend(settings.iter().map(|(key, value)| (optio_webhooks::config::variable(key), value.clone())));
    environment
}

/// Runs a command, and returns its exit code and everything that it printed.
fn run(arguments: &[&str], environment: &[(String, String)]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM).args(arguments).envs(environment.iter().cloned()).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_tls_and_passwords_tokens_or_certificates_under_the_documented_acls() {
    let kafka = SecuredKafka::start().await;
    let world = World::with(&[
        ("kafka.brokers", kafka.address()),
        ("kafka.topic", "task-events"),
        ("kafka.group", "optio-webhooks"),
        ("delivery.attempts_max", "3"),
    ])
    .await;
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    acl::allow(&clients::producer(&world.config()).create().unwrap(), &documented);
    world.webhook("/fine", &[EventType::TaskCompleted]).await;
    world.webhook("/broken", &[EventType::TaskFailed]).await;
    world.webhook("/owner", &EventType::OPERATIONAL).await;
    let is_retried = |request: &crate::harness::receiver::Request| request.delivery().as_bytes()[0].is_multiple_of(2);
    world.receiver.answer(move |request| {
        let fails = request.path == "/broken" || (is_retried(request) && request.attempt() == 1);
        Reply::status(if fails { 500 } else { 200 })
    });
    let (mut completed, mut failed) = (0, 0);
    let ways: [(&str, SignIn); 3] = [
        ("password", SecuredKafka::with_password),
        ("token", SecuredKafka::with_token),
        ("certificate", SecuredKafka::with_certificate),
    ];
    for (way, sign_in) in ways {
        let of_worker = environment(&world, &sign_in(&kafka, "worker"));
        let mut worker = Worker::start_with(&["run", "--only", "worker"], &of_worker);
        worker.readiness(true).await;
        let of_producer = environment(&world, &sign_in(&kafka, "producer"));
        for (event, count) in [("task.completed", 40), ("task.failed", 5)] {
            let emitted = tokio::task::block_in_place(|| {
                run(&["emit", "--event", event, "--count", &count.to_string()], &of_producer)
            });
            assert_eq!(emitted.0, Some(0), "{way}: {}", emitted.1);
        }
        (completed, failed) = (completed + 40, failed + 5);
        // The ledger: each completed event arrives and succeeds once, and each failed one is tried three times and dies.
        world.dead_lettered(failed).await;
        world.settled().await;
        let requests = world.receiver.requests();
        let succeeded = requests
            .iter()
            .filter(|request| request.path == "/fine" && !(is_retried(request) && request.attempt() == 1));
        assert_eq!(succeeded.count(), completed, "{way}");
        assert_eq!(requests.iter().filter(|request| request.path == "/broken").count(), failed * 3, "{way}");
        assert_eq!(world.dead_letters().len(), failed, "{way}");
        crate::harness::eventually("the owner is told of the dead letters", async || {
            world.receiver.requests().iter().any(|request| request.path == "/owner").then_some(())
        })
        .await;
        assert!(worker.terminate().await.success(), "{way}");
        assert!(!worker.log().contains("uthorization"), "{way}: {}", worker.log());
        assert!(!worker.log().contains("-password"), "{way}: {}", worker.log());
        let of_admin = environment(&world, &sign_in(&kafka, "admin"));
        let checked = tokio::task::block_in_place(|| run(&["topics", "check"], &of_admin));
        assert!(checked.0 == Some(0) && !checked.1.contains("unchecked"), "{way}: {}", checked.1);
    }
    // A replay signs in like everything else.
    world.receiver.answer(|_| Reply::status(200));
    let of_worker = environment(&world, &kafka.with_password("worker"));
    let mut worker = Worker::start_with(&["run", "--only", "worker"], &of_worker);
    worker.readiness(true).await;
    let of_admin = environment(&world, &kafka.with_password("admin"));
    let replayed = tokio::task::block_in_place(|| run(&["replay", "--all", "--yes"], &of_admin));
    assert!(replayed.1.contains(&format!("{failed} replayed")), "{}", replayed.1);
    world.receiver.arrived(world.receiver.count().max(completed + failed)).await;
    world.settled().await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_which_setting_is_wrong() {
    let kafka = SecuredKafka::start().await;
    let world = World::with(&[("kafka.brokers", kafka.address())]).await;
    let mut cases = Vec::new();
    for (wrong, value, settings, sentence) in [
        ("sasl_password", "guessed", kafka.with_password("worker"), "refuses the user or the password"),
        ("ssl_ca_location", "-", kafka.with_password("worker"), "certificate isn't trusted"),
        ("sasl_oauthbearer_client_secret", "guessed", kafka.with_token("worker"), "no token can be had"),
        ("ssl_certificate_location", "-", kafka.with_certificate("worker"), "asks for a client certificate"),
    ] {
        let key = format!("kafka.properties.{wrong}");
        let mut settings = settings;
        settings.retain(|(name, _)| *name != key && !(wrong == "ssl_certificate_location" && name.contains("ssl_key")));
        let mut environment = environment(&world, &settings);
        if value != "-" {
            environment.push((optio_webhooks::config::variable(&key), value.to_owned()));
        }
        let checked = tokio::task::spawn_blocking(move || run(&["topics", "check"], &environment));
        cases.push((wrong, sentence, checked));
    }
    for (wrong, sentence, checked) in cases {
        let (code, printed) = checked.await.unwrap();
        assert_eq!(code, Some(1), "{wrong}: {printed}");
        assert!(printed.contains(sentence) && printed.contains("kafka.brokers"), "{wrong}: {printed}");
        assert!(!printed.contains("guessed") && !printed.contains("-password"), "{wrong}: {printed}");
    }
    // A worker says it too, and goes on trying.
    let mut settings = kafka.with_password("worker");
    settings.retain(|(name, _)| *name != "kafka.properties.sasl_password");
    settings.push(("kafka.properties.sasl_password", "guessed".to_owned()));
    let worker = Worker::start(&environment(&world, &settings));
    crate::harness::eventually("/readyz says what is wrong", async || {
        let (status, page) = worker.page("/readyz").await?;
        (status == 503 && page.contains("refuses the user or the password")).then_some(())
    })
    .await;
}
