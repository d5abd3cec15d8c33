//! The spans of one attempt: the record's processing, and in it decode, wait, attempt and settle.

use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{KeyValue, TraceId};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks, SpanProcessor as _};

use super::{TRACER, Tracer, is_sampled};
use crate::delivery::{Attempt, Delivery, Fate};
use crate::traceparent::TraceParent;

/// A record that was read.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// When it was read. None if attempts weren't traced then.
    pub read_at: Option<SystemTime>,
}

/// The trace of an attempt that is sampled.
#[derive(Debug)]
pub struct AttemptTrace {
    trace: TraceId,
    /// The span of the producer, if the event has a trace context.
    parent: Option<SpanId>,
    process: SpanId,
    attempt: SpanId,
    name: String,
    of_process: Vec<KeyValue>,
    of_attempt: Vec<KeyValue>,
    status: Status,
    read_at: SystemTime,
    queued_at: SystemTime,
    started_at: SystemTime,
    ended_at: SystemTime,
}

impl AttemptTrace {
    /// Begins the trace of an attempt that starts now. `queued_at` is when the delivery began to wait for its endpoint.
    /// None if this attempt isn't sampled: its event's trace context says so, or `traces.sample_ratio`.
    #[must_use]
    pub fn begin(delivery: &Delivery, record: Record<'_>, queued_at: Option<SystemTime>) -> Option<Box<Self>> {
        let tracer = TRACER.get()?;
        let (trace, parent) = match &delivery.traceparent {
            Some(of_event) if !of_event.is_sampled() => return None,
            Some(of_event) => (TraceId::from(of_event.trace_id()), Some(SpanId::from(of_event.parent_id()))),
            // All attempts of an event are in one trace, whichever worker makes them.
            None => (TraceId::from(xxhash_rust::xxh3::xxh3_128(delivery.event_id.as_bytes()).max(1)), None),
        };
        if parent.is_none() && !is_sampled(trace, tracer.sample_ratio) {
            return None;
        }
        let started_at = SystemTime::now();
        let read_at = record.read_at?;
        Some(Box::new(Self {
            trace,
            parent,
            process: new_span(),
            attempt: new_span(),
            name: format!("process {}", record.topic),
            of_process: vec![
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.name", "process"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.destination.name", record.topic.to_owned()),
                KeyValue::new("messaging.destination.partition.id", record.partition.to_string()),
                KeyValue::new("messaging.kafka.offset", record.offset),
                KeyValue::new("optio.event", delivery.event_type.as_str()),
                KeyValue::new("optio.event.id", delivery.event_id.to_string()),
                KeyValue::new("optio.task.id", delivery.task_id.to_string()),
                KeyValue::new("optio.webhook.id", delivery.webhook_id.to_string()),
                KeyValue::new("optio.delivery.id", delivery.id.to_string()),
                KeyValue::new("optio.attempt", i64::from(delivery.attempts) + 1),
            ],
            of_attempt: Vec::new(),
            status: Status::Unset,
            read_at,
            queued_at: queued_at.unwrap_or(started_at).max(read_at),
            started_at,
            ended_at: started_at,
        }))
    }

    /// The trace context of the request: its parent is the span of the attempt.
    #[must_use]
    pub fn traceparent(&self) -> TraceParent {
        TraceParent::sampled(self.trace.to_bytes(), self.attempt.to_bytes())
    }

    /// Notes what became of the attempt.
    pub fn attempted(&mut self, url: &url::Url, attempt: &Attempt, fate: Fate) {
        self.ended_at = self.started_at + attempt.duration;
        let mut put = |key: &'static str, value: opentelemetry::Value| self.of_attempt.push(KeyValue::new(key, value));
        put("http.request.method", "POST".into());
        // The path and the query of a webhook may be secret.
        if let Some(host) = url.host_str() {
            put("server.address", host.to_owned().into());
        }
        if let Some(port) = url.port_or_known_default() {
            put("server.port", i64::from(port).into());
        }
        if let Some(status) = attempt.status {
            put("http.response.status_code", i64::from(status).into());
        }
        if let Some(code) = attempt.failure {
            put("error.type", code.as_str().into());
            self.status = Status::error(code.as_str());
        }
        self.of_process.push(KeyValue::new("optio.fate", fate.as_str()));
    }

    /// Sends the spans of the attempt, which is settled now.
    pub fn settled(self: Box<Self>) {
        if let Some(tracer) = TRACER.get() {
            for span in self.spans(tracer, SystemTime::now()) {
                tracer.processor.on_end(span);
            }
        }
    }

    fn spans(self, tracer: &Tracer, settled_at: SystemTime) -> [SpanData; 5] {
        let Self { trace, process, read_at, queued_at, started_at, ended_at, .. } = self;
        let span = |id, parent: SpanId, kind, name, start_time, end_time: SystemTime| SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: kind,
            name,
            start_time,
            // A clock that was set back must not make a span of negative length.
            end_time: end_time.max(start_time),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: tracer.scope.clone(),
        };
        let inner =
            |name: &'static str, start, end| span(new_span(), process, SpanKind::Internal, name.into(), start, end);
        let parent = self.parent.unwrap_or(SpanId::INVALID);
        [
            SpanData {
                parent_span_is_remote: self.parent.is_some(),
                attributes: self.of_process,
                ..span(process, parent, SpanKind::Consumer, self.name.into(), read_at, settled_at)
            },
            inner("decode", read_at, queued_at),
            inner("wait", queued_at, started_at),
            SpanData {
                attributes: self.of_attempt,
                status: self.status,
                ..span(self.attempt, process, SpanKind::Client, "POST".into(), started_at, ended_at)
            },
            inner("settle", ended_at, settled_at),
        ]
    }
}

fn new_span() -> SpanId {
    SpanId::from(rand::random_range(1..=u64::MAX))
}
