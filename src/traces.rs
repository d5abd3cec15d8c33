//! Traces of attempts (OpenTelemetry, sent with OTLP over HTTP). `docs/operations.md`, section "Traces", shows them.
//!
//! An attempt is one tree of spans. It is made at once, after the attempt is settled, from the times that were noted on
//! the way. Until then, an attempt that isn't sampled costs nothing, and one that is costs a few numbers.

mod attempt;

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::{InstrumentationScope, KeyValue, TraceId};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanProcessor as _};

pub use attempt::{AttemptTrace, Record};

use crate::config;

/// How long the end of the process may wait for the last spans.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// The path of traces at an OTLP receiver. Source: OTLP specification, "OTLP/HTTP request".
const PATH: &str = "/v1/traces";

static TRACER: OnceLock<Tracer> = OnceLock::new();

/// Sends spans, and decides which attempts have any.
struct Tracer {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    sample_ratio: f64,
}

/// Starts to trace, if `traces.endpoint` is set. Later calls change nothing.
///
/// # Errors
/// If the exporter can't be made.
pub fn start(settings: &config::Traces) -> anyhow::Result<()> {
    if settings.endpoint.is_empty() || TRACER.get().is_some() {
        return Ok(());
    }
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}{PATH}", settings.endpoint.trim_end_matches('/')))
        .with_timeout(settings.timeout)
        .with_headers(settings.headers()?.into_iter().collect::<HashMap<_, _>>())
        .build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue_max)
        .with_max_export_batch_size((settings.queue_max / 4).clamp(1, 512))
        .build();
    let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    // The builder reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, which win over these.
    let resource = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance()));
    let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => resource.build(),
        None => resource.with_service_name("optio-webhooks").build(),
    };
    processor.set_resource(&resource);
    let scope = InstrumentationScope::builder("optio-webhooks").with_version(env!("CARGO_PKG_VERSION")).build();
    let _ = TRACER.set(Tracer { processor, scope, sample_ratio: settings.sample_ratio });
    Ok(())
}

/// The name of this process among those of the service: the host's name, which is the pod's in Kubernetes.
fn instance() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", name.trim(), std::process::id())
}

/// Sends the spans that still wait, for at most 5 seconds. Blocks the thread.
pub fn stop() {
    if let Some(tracer) = TRACER.get()
        && let Err(error) = tracer.processor.shutdown_with_timeout(FLUSH_MAX)
    {
        tracing::warn!(%error, "the last spans can't be sent");
    }
}

/// The present time, if attempts are traced.
#[must_use]
pub fn now() -> Option<SystemTime> {
    TRACER.get().map(|_| SystemTime::now())
}

/// Whether a trace without a caller's decision is sampled. The same trace gets the same answer in every process.
///
/// Source: OpenTelemetry SDK specification, "TraceIdRatioBased": the lower 63 bits decide.
fn is_sampled(trace: TraceId, ratio: f64) -> bool {
    let bytes = trace.to_bytes();
    let low = u64::from_be_bytes(bytes[8..].try_into().expect("a trace id has 16 bytes")) & (u64::MAX >> 1);
    (low as f64) < ratio * (1_u64 << 63) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_sampled_traces_is_the_ratio() {
        let share = |ratio: f64| {
            let all = (0..10_000_u128).map(|n| TraceId::from(xxhash_rust::xxh3::xxh3_128(&n.to_be_bytes())));
            all.filter(|trace| is_sampled(*trace, ratio)).count()
        };
        assert_eq!((share(0.0), share(1.0)), (0, 10_000));
        assert!((900..1_100).contains(&share(0.1)), "{}", share(0.1));
    }
}
