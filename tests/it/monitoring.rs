//! Metrics, health, alerts and the dashboard.

use std::collections::BTreeSet;
use std::path::Path;

use axum::body::Body;
use optio_webhooks::event::EventType;
use serde_json::Value;

use crate::harness::eventually;
use crate::harness::prometheus::{self, Prometheus, promtool};
use crate::harness::receiver::Reply;
use crate::harness::service::Service;
use crate::harness::worker::Worker;
use crate::harness::world::World;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The value of the series whose line begins with `series` and a space.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn metrics(worker: &Worker) -> String {
    worker.page("/metrics").await.unwrap().1
}

#[test]
fn each_alert_fires_when_its_condition_is_true_and_not_before() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus/alerts.test.yml");
    let (passed, printed) = promtool(&["test", "rules", tests.to_str().unwrap()], "");
    assert!(passed, "{printed}");
    // Each alert has a test in which it fires, one in which it stays quiet, and a section in the runbook.
    let (alerts, tests, runbook) =
        (read("config/prometheus/alerts.yml"), read("config/prometheus/alerts.test.yml"), read("docs/runbook.md"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in &names {
        for what in ["fires", "stays quiet"] {
            assert!(tests.contains(&format!("name: {name} {what}\n")), "{name} has no test in which it {what}");
        }
        assert!(runbook.contains(&format!("\n## {name}\n")), "{name} has no section in the runbook");
    }
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, names.iter().copied().collect(), "the runbook has a section for each alert and no other");
}

/// The queries of the dashboard. Grafana fills in the variable for the interval.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of_panel = |panel: &Value| -> Vec<(String, String)> {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let query = |target: &Value| target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
        targets.iter().map(|target| (title.clone(), query(target))).collect()
    };
    panels.flat_map(of_panel).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_a_worker_are_clean_and_feed_every_panel_and_alert() {
    let world = World::with(&[("delivery.attempts_max", "2")]).await;
    world.webhook("/fine", &[EventType::TaskCompleted]).await;
    world.webhook("/broken", &[EventType::TaskFailed]).await;
    world.receiver.answer(|request| Reply::status(if request.path == "/broken" { 500 } else { 200 }));
    let mut worker = world.worker().await;
    let prometheus = Prometheus::watching(&worker.address()).await;
    // Rates need two scrapes between which something happened.
    for _ in 0..2 {
        world.emit(EventType::TaskCompleted, 20).await;
        world.emit(EventType::TaskFailed, 5).await;
        world.settled().await;
    }
    let dashboard: Value = serde_json::from_str(&read("config/grafana/dashboard.json")).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 50, "{}", queries.len());
    for (title, query) in queries {
        eventually(&format!("the panel {title:?} has data: {query}"), async || {
            let values = prometheus.values(&query).await?;
            (!values.is_empty() && values.iter().any(|value| value.is_finite())).then_some(())
        })
        .await;
    }
    let rules = eventually("every rule was evaluated", async || {
        let rules = prometheus.rules().await?;
        rules.iter().all(|(_, health)| health == "ok").then_some(rules)
    })
    .await;
    assert_eq!(rules.len(), read("config/prometheus/alerts.yml").matches("- alert: ").count());
    let page = metrics(&worker).await;
    let (passed, printed) = promtool(&["check", "metrics"], &page);
    assert!(passed, "{printed}\n{page}");
    let delivered = r#"optio_webhooks_attempts_total{event="task.completed",outcome="delivered",status="2xx"}"#;
    assert_eq!(value(&page, delivered), Some(40.0), "{page}");
    let failed = r#"optio_webhooks_attempts_total{event="task.failed",outcome="status",status="5xx"}"#;
    assert_eq!(value(&page, failed), Some(20.0), "{page}");
    assert_eq!(value(&page, "optio_webhooks_delivery_delay_seconds_count"), Some(40.0), "{page}");
    assert_eq!(value(&page, "optio_webhooks_first_attempt_delay_seconds_count"), Some(50.0), "{page}");
    assert_eq!(value(&page, "optio_webhooks_delivered_attempt_duration_seconds_count"), Some(40.0), "{page}");
    assert!(worker.terminate().await.success());
}

#[test]
fn every_metric_that_an_alert_or_a_panel_reads_is_in_the_reference() {
    let reference = read("docs/reference.md");
    let named = read("config/prometheus/alerts.yml") + &read("config/grafana/dashboard.json");
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = named.split(|c: char| !is_of_name(c)).filter(|word| word.starts_with("optio_webhooks_"));
    for word in words.collect::<BTreeSet<_>>() {
        let name = ["_bucket", "_count", "_sum"].iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word);
        assert!(reference.contains(&format!("| `{name}` |")), "{name} is not in docs/reference.md");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_records_above_a_slow_one_are_no_lag() {
    let world = World::with(&[("topics.partitions", "1"), ("delivery.timeout", "60s")]).await;
    world.webhook("/slow", &[EventType::TaskFailed]).await;
    world.webhook("/fine", &[EventType::TaskCompleted]).await;
    // The answer to the slow one ends when the sender is dropped.
    let (hanging, ended) = tokio::sync::watch::channel(());
    world.receiver.answer(move |request| {
        let mut ended = ended.clone();
        let body = futures_util::stream::once(async move {
            let _ = ended.changed().await;
            Ok::<_, std::convert::Infallible>("")
        });
        let body = if request.path == "/slow" { Body::from_stream(body) } else { Body::empty() };
        Reply { body, ..Reply::status(200) }
    });
    let mut worker = world.worker().await;
    world.emit(EventType::TaskFailed, 1).await;
    world.emit(EventType::TaskCompleted, 30).await;
    world.receiver.arrived(31).await;
    let of_events =
        |name: &str| format!(r#"optio_webhooks_{name}{{topic="{}",partition="0"}}"#, world.names().events());
    let page = eventually("only the slow record is unsettled", async || {
        let page = metrics(&worker).await;
        (value(&page, &of_events("unsettled_records")) == Some(1.0)).then_some(page)
    })
    .await;
    assert_eq!(value(&page, &of_events("lag")), Some(0.0), "{page}");
    assert_eq!(value(&page, &of_events("open_offsets")), Some(31.0), "{page}");
    assert_eq!(value(&page, "optio_webhooks_requests_in_flight"), Some(1.0), "{page}");
    eventually("age and block grow", async || {
        let page = metrics(&worker).await;
        let age = value(&page, &of_events("oldest_unsettled_age_seconds"))?;
        let stage = of_events("watermark_blocked_seconds").replace('}', r#",stage="sending"}"#);
        (age > 1.0 && value(&page, &stage)? > 1.0).then_some(())
    })
    .await;
    drop(hanging);
    eventually("nothing is unsettled", async || {
        let page = metrics(&worker).await;
        let unsettled = value(&page, &of_events("unsettled_records"))?;
        let age = value(&page, &of_events("oldest_unsettled_age_seconds"))?;
        (unsettled == 0.0 && age == 0.0 && !page.contains("optio_webhooks_watermark_blocked_seconds{")).then_some(())
    })
    .await;
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gauges_of_a_partition_move_with_it_to_another_worker() {
    let world = World::new().await;
    world.webhook("/", &EventType::TASKS).await;
    let mut first = world.worker().await;
    let of_events = format!("optio_webhooks_lag{{topic=\"{}\"", world.names().events());
    let count = async |worker: &Worker| metrics(worker).await.matches(&of_events).count();
    eventually("the first worker has both partitions", async || (count(&first).await == 2).then_some(())).await;
    let mut second = world.worker().await;
    eventually("each worker has one partition", async || {
        (count(&first).await == 1 && count(&second).await == 1).then_some(())
    })
    .await;
    let page = metrics(&first).await;
    assert!(value(&page, r#"optio_webhooks_rebalances_total{change="revoked"}"#) >= Some(1.0), "{page}");
    assert!(second.terminate().await.success() && first.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_readiness_say_which_dependency_is_away() {
    let (kafka, redis) = (Service::kafka(), Service::redis());
    let world = World::with(&[("kafka.brokers", &kafka.address), ("redis.url", &redis.address)]).await;
    let worker = world.worker().await;
    let up = async |dependency: &str| {
        value(&metrics(&worker).await, &format!("optio_webhooks_up{{dependency=\"{dependency}\"}}"))
    };
    let away = async |part: &str| {
        let (status, page) = worker.page("/readyz").await?;
        let page: Value = serde_json::from_str(&page).unwrap();
        let is_away = page["parts"][part]["reason"] == "away" && page["ready"] == false;
        (status == 503 && is_away).then_some(())
    };
    assert_eq!((up("kafka").await, up("redis").await), (Some(1.0), Some(1.0)));
    redis.halt();
    eventually("/readyz names redis", async || away("redis").await).await;
    assert_eq!((up("kafka").await, up("redis").await), (Some(1.0), Some(0.0)));
    redis.resume();
    eventually("redis is up again", async || (up("redis").await == Some(1.0)).then_some(())).await;
    kafka.halt();
    eventually("/readyz names kafka", async || away("kafka").await).await;
    assert_eq!((up("kafka").await, up("redis").await), (Some(0.0), Some(1.0)));
    assert_eq!(worker.page("/healthz").await.unwrap().0, 200, "the threads move although the broker is away");
}

#[test]
fn the_alerts_are_where_the_documents_say() {
    assert!(prometheus::alerts().exists());
    let operations = read("docs/operations.md");
    for path in ["config/prometheus/alerts.yml", "config/grafana/dashboard.json", "runbook.md"] {
        assert!(operations.contains(path), "docs/operations.md doesn't name {path}");
    }
}
