//! The Helm chart, the manifests, the systemd unit, and the health check of the image.

use std::path::{Path, PathBuf};
use std::process::Command;

use optio_webhooks::config::Config;

use crate::harness::worker::{PROGRAM, Worker};
use crate::harness::{World, skipped};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Runs helm, and returns whether it succeeded and everything that it printed. None, loudly, without helm.
fn helm(arguments: &[&str]) -> Option<(bool, String)> {
    match Command::new("helm").args(arguments).current_dir(root()).output() {
        Ok(output) => {
            let printed = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
        }
        Err(error) => {
            skipped(&format!("the Helm chart: {error}"));
            None
        }
    }
}

const CHART: &str = "deploy/helm/optio-webhooks";

fn template(arguments: &[&str]) -> Option<(bool, String)> {
    helm(&[&["template", "optio-webhooks", CHART, "--kube-version", "1.30.0"], arguments].concat())
}

#[test]
fn the_chart_renders_each_set_of_values_and_the_manifests_are_its_output() {
    let Some((linted, printed)) =
        helm(&["lint", "--strict", CHART, "--values", &format!("{CHART}/ci/minimal-values.yaml")])
    else {
        return;
    };
    assert!(linted, "{printed}");
    for values in ["minimal", "secured", "scaled"] {
        let (rendered, printed) = template(&["--values", &format!("{CHART}/ci/{values}-values.yaml")]).unwrap();
        assert!(rendered && printed.contains("kind: StatefulSet"), "{values}: {printed}");
        assert!(printed.contains("readOnlyRootFilesystem: true") && printed.contains("runAsNonRoot: true"), "{values}");
    }
    let checked = Command::new(root().join("deploy/render-manifests")).arg("--check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn the_chart_refuses_values_that_cannot_work_with_a_sentence() {
    let good = "kafka.brokers=k:9092,redis.url=redis://r/,secrets.keysSecret.name=s,admin.tokenSecret.name=t";
    let Some((rendered, printed)) = template(&["--set", good]) else { return };
    assert!(rendered, "{printed}");
    for (changed, sentence) in [
        ("kafka.brokers=", "/kafka/brokers"),
        ("redis.url=redis://user:password@r/", "/redis/url"),
        ("redis.url=", "redis: set redis.url"),
        ("redis.urlSecret.name=x", "not both"),
        ("secrets.keysSecret.name=", "generate-key"),
        ("admin.tokenSecret.name=", "admin.tokenSecret.name: the Secret"),
        ("workers.replicas=0", "/workers/replicas"),
        ("keda.enabled=true,keda.minReplicas=0", "/keda/minReplicas"),
        ("keda.enabled=true,keda.minReplicas=9", "keda.maxReplicas is below"),
        ("networkPolicy.enabled=true", "networkPolicy.kafka"),
        (r"settings.kafka\.topic=x", "a value of its own"),
        (r"settings.redis\.url=x", "a value of its own"),
        (r"secretSettings.redis\.url.name=x,secretSettings.redis\.url.key=y", "a value of its own"),
        ("settings.drain=x", "does not match pattern"),
        ("workers.replica=3", "replica"),
        ("image.digest=sha256:short", "/image/digest"),
    ] {
        let (rendered, printed) = template(&["--set", good, "--set", changed]).unwrap();
        assert!(!rendered && printed.contains(sentence), "{changed}: {printed}");
    }
}

#[test]
fn everything_that_stops_a_worker_waits_longer_than_its_drain() {
    let drain = Config::built_in().worker.drain_timeout.as_secs();
    let number = |text: &str, before: &str| -> u64 {
        let rest = text.split(before).nth(1).unwrap_or_else(|| panic!("{before} is missing"));
        rest.trim_start().chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    for (file, before) in [
        ("deploy/systemd/optio-webhooks.service", "TimeoutStopSec="),
        ("deploy/manifests/optio-webhooks.yaml", "terminationGracePeriodSeconds:"),
        ("docker-compose.yml", "stop_grace_period:"),
    ] {
        // After the drain, the consumers close (10 s), and the last spans of traces are sent (5 s).
        assert!(number(&read(file), before) > drain + 16, "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_says_whether_the_process_is_well() {
    let world = World::new().await;
    let mut worker = world.worker().await;
    let starting = Worker::start(&world.environment());
    let asked = Command::new(PROGRAM)
        .args(["health", "--ready", "--wait", "60s"])
        .env("OPTIO_WEBHOOKS__ADMIN__LISTEN", starting.address().replace("http://", ""))
        .output();
    assert!(tokio::task::block_in_place(|| asked.unwrap()).status.success());
    drop(starting);
    let ask = |arguments: &[&str]| {
        let listen = worker.address().replace("http://127.0.0.1", "0.0.0.0");
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("OPTIO_WEBHOOKS__ADMIN__LISTEN", listen);
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
    };
    assert_eq!(ask(&["health"]), (Some(0), "ok\n".to_owned()));
    let (code, printed) = ask(&["health", "--ready"]);
    assert!(code == Some(0) && printed.contains(r#""ready":true"#), "{printed}");
    let stopped = worker.terminate().await;
    assert!(stopped.success());
    let ask = |arguments: &[&str]| {
        let listen = worker.address().replace("http://", "");
        let mut command = Command::new(PROGRAM);
        let output = command.args(arguments).env("OPTIO_WEBHOOKS__ADMIN__LISTEN", listen).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, printed) = ask(&["health", "--wait", "300ms"]);
    assert!(code == Some(1) && printed.contains("does not answer"), "{printed}");
}
