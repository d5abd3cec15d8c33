//! Asks the broker about topics and groups through librdkafka's own functions, for what rdkafka doesn't offer.

#![expect(unsafe_code, reason = "rdkafka lacks these requests, or drops the errors of single topics")]

pub mod members;
pub mod rights;
pub mod settings;

use std::ffi::{CStr, c_char};
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::types::RDKafkaErrorCode;

/// Makes a request with `send`, waits at most `timeout` for its answer, and reads that with `read`. The answer is
/// destroyed afterwards, so `read` must copy what it needs.
///
/// # Safety
/// `client` must be valid during the call. `send` must make one request whose answer goes to the queue.
unsafe fn ask<T>(
    client: *mut native::rd_kafka_t,
    timeout: Duration,
    send: impl FnOnce(*mut native::rd_kafka_queue_t),
    read: impl FnOnce(*mut native::rd_kafka_event_t) -> Result<T, String>,
) -> Result<T, String> {
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the queue and the event are destroyed after their last use, and the caller keeps the client valid.
    unsafe {
        let queue = native::rd_kafka_queue_new(client);
        send(queue);
        let event = native::rd_kafka_queue_poll(queue, timeout_ms);
        let answer = if event.is_null() {
            Err("the broker didn't answer in time".to_owned())
        } else if is_error(native::rd_kafka_event_error(event)) {
            Err(text(native::rd_kafka_event_error_string(event)))
        } else {
            read(event)
        };
        if !event.is_null() {
            native::rd_kafka_event_destroy(event);
        }
        native::rd_kafka_queue_destroy(queue);
        answer
    }
}

fn is_error(code: native::rd_kafka_resp_err_t) -> bool {
    RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError
}

/// # Safety
/// `text` must be null or point to a string that ends with a NUL.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller guarantees it, and null was handled above.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
