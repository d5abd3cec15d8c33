//! Traces: what an OTLP receiver gets, and what the requests carry.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use optio_webhooks::event::EventType;
use prost::Message as _;

use crate::harness::receiver::Receiver;
use crate::harness::world::Raw;
use crate::harness::{Reply, World};

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Every span that arrived, after a check of the resource.
fn spans(collector: &Receiver) -> Vec<Span> {
    let mut spans = Vec::new();
    for request in collector.requests() {
        assert_eq!((request.path.as_str(), request.header("x-team")), ("/v1/traces", "web"));
        let decoded = ExportTraceServiceRequest::decode(request.body).unwrap();
        for of_resource in decoded.resource_spans {
            let resource = of_resource.resource.unwrap();
            let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            let name = service.value.as_ref().unwrap().value.as_ref().unwrap();
            assert_eq!(*name, Value::StringValue("optio-webhooks".to_owned()));
            spans.extend(of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    spans
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()?;
    Some(match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{key} is {other:?}"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_an_event_goes_on_through_each_attempt_into_the_request() {
    let collector = Receiver::start().await;
    let endpoint = collector.url("/");
    let world =
        World::with(&[("traces.endpoint", &endpoint), ("traces.headers", "x-team=web"), ("traces.sample_ratio", "1")])
            .await;
    world.webhook("/hidden?key=hidden", &EventType::TASKS).await;
    world.receiver.answer(|request| Reply::status(if request.attempt() == 1 { 500 } else { 200 }));
    let mut worker = world.worker().await;
    for context in [Some(SAMPLED), Some(NOT_SAMPLED), None] {
        let value = World::transition(EventType::TaskCompleted).to_string();
        let headers = context.map(|text| (b"traceparent".to_vec(), Some(text.as_bytes().to_vec())));
        let headers = headers.into_iter().collect();
        world.write_to(world.names().events(), Raw { value: Some(value.as_bytes()), headers, ..Raw::default() }).await;
    }
    let requests = world.receiver.arrived(6).await;
    world.settled().await;
    assert!(worker.terminate().await.success());

    let spans = spans(&collector);
    assert_eq!(spans.len(), 2 * 2 * 5, "two events that are traced, with two attempts each: {spans:#?}");
    assert!(!format!("{spans:?}").contains("hidden"), "the path of a webhook may be secret");
    let mut contexts = Vec::new();
    for process in spans.iter().filter(|span| span.name.starts_with("process ")) {
        let children: BTreeMap<&str, &Span> = spans
            .iter()
            .filter(|span| span.parent_span_id == process.span_id)
            .map(|span| (span.name.as_str(), span))
            .collect();
        assert_eq!(children.keys().copied().collect::<Vec<_>>(), ["POST", "decode", "settle", "wait"]);
        assert!(children.values().all(|child| child.trace_id == process.trace_id));
        let order = ["decode", "wait", "POST", "settle"].map(|name| children[name]);
        assert_eq!(order[0].start_time_unix_nano, process.start_time_unix_nano);
        assert_eq!(order[3].end_time_unix_nano, process.end_time_unix_nano);
        for pair in order.windows(2) {
            assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano, "{pair:#?}");
        }
        let (attempt, post) = (attribute(process, "optio.attempt").unwrap(), children["POST"]);
        let expected = match attempt.as_str() {
            "1" => (world.names().events().to_owned(), "retry", "500", Some("status")),
            _ => (world.names().retry(1), "delivered", "200", None),
        };
        assert_eq!(attribute(process, "messaging.destination.name").unwrap(), expected.0);
        assert_eq!(attribute(process, "optio.fate").unwrap(), expected.1);
        assert_eq!(attribute(post, "http.response.status_code").unwrap(), expected.2);
        assert_eq!(attribute(post, "error.type").as_deref(), expected.3);
        contexts.push(format!("00-{}-{}-01", hex::encode(&post.trace_id), hex::encode(&post.span_id)));
        let is_of_producer = hex::encode(&process.trace_id) == SAMPLED[3..35];
        assert_eq!(hex::encode(&process.parent_span_id), if is_of_producer { &SAMPLED[36..52] } else { "" });
    }
    let mut carried: Vec<&str> = requests.iter().map(|request| request.header("traceparent")).collect();
    carried.sort_unstable();
    contexts.extend([NOT_SAMPLED.to_owned(), NOT_SAMPLED.to_owned()]);
    contexts.sort_unstable();
    assert_eq!(carried, contexts, "each request carries the span of its attempt");
    let traces: std::collections::BTreeSet<&str> = contexts.iter().map(|context| &context[3..35]).collect();
    assert_eq!(traces.len(), 3, "the attempts of an event are in one trace");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_delays_nothing() {
    let world = World::with(&[
        // Nobody listens on this port.
        ("traces.endpoint", "http://127.0.0.1:9"),
        ("traces.sample_ratio", "1"),
        ("traces.queue_max", "64"),
    ])
    .await;
    world.webhook("/", &EventType::TASKS).await;
    let mut worker = world.worker().await;
    world.emit(EventType::TaskCompleted, 500).await;
    world.receiver.delivered(500).await;
    world.settled().await;
    assert!(worker.terminate().await.success());
    assert!(worker.log().contains("opentelemetry") || worker.log().contains("spans"), "{}", worker.log());
}
