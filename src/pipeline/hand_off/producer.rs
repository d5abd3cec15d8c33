//! One Kafka producer, and the records that are on their way through it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use rdkafka::error::KafkaError;
use rdkafka::message::{OwnedHeaders, OwnedMessage};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;

use crate::kafka::closing::ClosedInBackground;
use crate::kafka::logging::Logging;
use crate::metrics;

/// A record to write.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    /// The size in bytes of the headers that another program wrote. Ours are small.
    pub(super) foreign_header_bytes: usize,
}

impl Outgoing<'_> {
    /// The size of the parts that other programs decide, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + self.foreign_header_bytes
    }
}

/// What writes records. Clones share the client.
#[derive(Clone)]
pub(super) enum Producer {
    Kafka(Arc<ClosedInBackground<FutureProducer<Logging>>>),
    #[cfg(test)]
    Scripted(Script),
}

impl Producer {
    /// Queues a record. The client sends it with others, and retries temporary errors itself.
    pub(super) fn start(&self, outgoing: Outgoing<'_>, headers: OwnedHeaders) -> Sending {
        let Outgoing { topic, key, value, .. } = outgoing;
        match self {
            Self::Kafka(producer) => {
                let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
                record.key = key;
                record.payload = value;
                match producer.send_result(record) {
                    Ok(future) => Sending::new(Inner::Kafka { future, _producer: producer.clone() }),
                    Err((error, record)) => Sending::refused(error, record.headers),
                }
            }
            #[cfg(test)]
            Self::Scripted(script) => {
                // Like the client's, the write goes on whether or not somebody waits for it.
                let written = tokio::spawn(script(topic, key, value, &headers));
                Sending::new(Inner::Scripted { written, headers: Some(headers) })
            }
        }
    }

    /// The error after which the producer can't go on.
    pub(super) fn fatal_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        match self {
            Self::Kafka(producer) => producer.client().fatal_error(),
            #[cfg(test)]
            Self::Scripted(_) => None,
        }
    }
}

/// A record that was given to a producer. It resolves when the broker has it, or to the error and the record's headers.
/// Dropping it doesn't take the record back.
#[must_use]
pub(in crate::pipeline) struct Sending {
    began: Instant,
    inner: Inner,
}

enum Inner {
    /// The producer stays alive until the broker has answered. Otherwise the answer would never come.
    Kafka { future: DeliveryFuture, _producer: Arc<ClosedInBackground<FutureProducer<Logging>>> },
    /// The answer is known already. None after it was given.
    Refused(Option<(KafkaError, OwnedHeaders)>),
    #[cfg(test)]
    Scripted { written: tokio::task::JoinHandle<Result<(), KafkaError>>, headers: Option<OwnedHeaders> },
}

impl Sending {
    fn new(inner: Inner) -> Self {
        Self { began: Instant::now(), inner }
    }

    /// A record that was refused at once.
    pub(super) fn refused(error: KafkaError, headers: Option<OwnedHeaders>) -> Self {
        Self::new(Inner::Refused(Some((error, headers.unwrap_or_default()))))
    }

    /// The same record after it was refused, so that [`super::HandOff::finish_retry`] goes on with it.
    pub(in crate::pipeline) fn refused_with(self, error: KafkaError, headers: OwnedHeaders) -> Self {
        Self { inner: Inner::Refused(Some((error, headers))), ..self }
    }

    /// When the record was given to the producer.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Observes how long the write took. To be called when it has succeeded.
    pub(in crate::pipeline) fn observe_duration(&self) {
        metrics::HAND_OFF_DURATION.observe(self.began.elapsed());
    }
}

impl Future for Sending {
    type Output = Result<(), (KafkaError, OwnedHeaders)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let headers = |mut record: OwnedMessage| record.detach_headers().unwrap_or_default();
        match &mut self.inner {
            Inner::Kafka { future, .. } => {
                let answer = ready!(Pin::new(future).poll(context)).expect("the producer is alive, so it answers");
                Poll::Ready(answer.map(drop).map_err(|(error, record)| (error, headers(record))))
            }
            Inner::Refused(answer) => Poll::Ready(Err(answer.take().expect("polled after its end"))),
            #[cfg(test)]
            Inner::Scripted { written, headers } => {
                let answer = ready!(Pin::new(written).poll(context)).expect("the script doesn't panic");
                Poll::Ready(answer.map_err(|error| (error, headers.take().expect("polled after its end"))))
            }
        }
    }
}

/// Writes instead of a broker, in simulations: topic, key, value and headers.
#[cfg(test)]
pub(crate) type Script = Arc<
    dyn Fn(
            &str,
            Option<&[u8]>,
            Option<&[u8]>,
            &OwnedHeaders,
        ) -> futures_util::future::BoxFuture<'static, Result<(), KafkaError>>
        + Send
        + Sync,
>;
