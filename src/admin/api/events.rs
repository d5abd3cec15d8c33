//! `/api/events/stream`: task events as they are written, for developers who forward them to their own machine.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::input;
use crate::admin::problem::{Error, Problem};
use crate::admin::state::{STREAMS_MAX, Shared};
use crate::event::EventType;
use crate::replay::tail;

/// The most events that wait for a slow client. Further ones wait in Kafka.
const WAITING_MAX: usize = 100;

/// Which events are streamed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// Only this event type.
    event: Option<EventType>,
}

/// An event of the stream: the data of a server-sent event named `event`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StreamedEvent)]
pub struct Streamed<'a> {
    /// The event type.
    event: EventType,
    /// The id of the event.
    event_id: &'a str,
    /// The task of the event.
    task_id: &'a str,
    /// The payload in the format `optio`.
    #[schema(value_type = Object)]
    payload: &'a RawValue,
}

/// Task events from now on, as server-sent events, until the client leaves or `admin.stream_max` is over. It subscribes
/// nobody: no webhook is stored, and nothing is tried again.
#[utoipa::path(get,
    operation_id = "streamEvents", path = "/api/events/stream", tag = "events", params(StreamQuery),
    responses((status = 200, body = Streamed, content_type = "text/event-stream"), (status = 400, body = Error), (status = 503, body = Error)))]
pub async fn stream(
    State(admin): State<Shared>,
    input::Query(query): input::Query<StreamQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    if query.event.is_some_and(EventType::is_operational) {
        return Err(Problem::field("event", "is about webhooks; only events of tasks are streamed"));
    }
    let permit = admin.streams.clone().try_acquire_owned().map_err(|_| {
        let sentence = format!("{STREAMS_MAX} people already follow the events of this server; try again later");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
    })?;
    let (events, arriving) = mpsc::channel(WAITING_MAX);
    // Dropping the stream drops the guard, which stops the thread.
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let tail = tokio::task::spawn_blocking({
        let config = admin.config.clone();
        move || tail::Tail::open(&config)
    });
    let tail = tail.await.map_err(anyhow::Error::new)?.map_err(|error| Problem::away(&error))?;
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        tail.read(&stop, |event| {
            if query.event.is_some_and(|wanted| wanted != event.event_type) {
                return true;
            }
            let payload = serde_json::from_slice(&event.body).unwrap_or(RawValue::NULL);
            let streamed = Streamed { event: event.event_type, event_id: &event.id, task_id: &event.task_id, payload };
            let data = serde_json::to_string(&streamed).unwrap_or_default();
            events.blocking_send(Event::default().event("event").data(data)).is_ok()
        });
    });
    let until = tokio::time::Instant::now() + admin.config.admin.stream_max;
    let stream = futures_util::stream::unfold((arriving, guard), move |(mut arriving, guard)| async move {
        let event = tokio::time::timeout_at(until, arriving.recv()).await.ok()??;
        Some((Ok(event), (arriving, guard)))
    });
    // The client knows by the first comment that what is written from now on arrives.
    let ready = futures_util::stream::once(async { Ok(Event::default().comment("ready")) });
    let keep_alive = KeepAlive::default().interval(Duration::from_secs(10));
    Ok(Sse::new(futures_util::StreamExt::chain(ready, stream)).keep_alive(keep_alive))
}
