//! Reads the settings of topics from the broker.
//!
//! rdkafka's `describe_configs` drops the error of a single topic, so that a refusal looks like a topic without
//! settings. This module calls librdkafka directly and keeps that error.

#![expect(unsafe_code, reason = "rdkafka drops the errors of single topics; librdkafka's functions report them")]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::ClientContext;
use rdkafka::types::RDKafkaErrorCode;

/// The settings of a topic by key, or the reason why they can't be read.
pub type Settings = Result<HashMap<String, String>, String>;

/// Reads the settings of `topics`. Blocks for at most `timeout`. A topic that the broker's answer leaves out is not in
/// the result.
///
/// # Errors
/// Returns the message of the broker or of librdkafka if the whole request fails.
pub fn topics<C: ClientContext>(
    client: &AdminClient<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<HashMap<String, Settings>, String> {
    let names: Vec<CString> = topics.iter().filter_map(|name| CString::new(*name).ok()).collect();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client outlives this function. The queue, the resources and the event are destroyed below, after
    // their last use. The call copies the resources. The event owns the result and its strings, and `read` copies them
    // before the event is destroyed.
    unsafe {
        let client = client.inner().native_ptr();
        let queue = native::rd_kafka_queue_new(client);
        let mut resources: Vec<_> = names
            .iter()
            .map(|name| {
                native::rd_kafka_ConfigResource_new(
                    native::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
                    name.as_ptr(),
                )
            })
            .collect();
        native::rd_kafka_DescribeConfigs(client, resources.as_mut_ptr(), resources.len(), ptr::null(), queue);
        let event = native::rd_kafka_queue_poll(queue, timeout_ms);
        let answer = if event.is_null() { Err("the broker didn't answer in time".to_owned()) } else { read(event) };
        if !event.is_null() {
            native::rd_kafka_event_destroy(event);
        }
        native::rd_kafka_ConfigResource_destroy_array(resources.as_mut_ptr(), resources.len());
        native::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// Copies the settings out of the answer.
///
/// # Safety
/// `event` must be a valid event from the queue of a DescribeConfigs request.
unsafe fn read(event: *mut native::rd_kafka_event_t) -> Result<HashMap<String, Settings>, String> {
    // SAFETY: the caller keeps the event alive during this call, and librdkafka gives the number of resources.
    unsafe {
        if is_error(native::rd_kafka_event_error(event)) {
            return Err(text(native::rd_kafka_event_error_string(event)));
        }
        let result = native::rd_kafka_event_DescribeConfigs_result(event);
        if result.is_null() {
            return Err("the answer isn't one to DescribeConfigs".to_owned());
        }
        let mut count = 0;
        let resources = native::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
        let mut found = HashMap::with_capacity(count);
        for at in 0..count {
            let resource = *resources.add(at);
            let name = text(native::rd_kafka_ConfigResource_name(resource));
            let settings = if is_error(native::rd_kafka_ConfigResource_error(resource)) {
                Err(text(native::rd_kafka_ConfigResource_error_string(resource)))
            } else {
                Ok(entries(resource))
            };
            found.insert(name, settings);
        }
        Ok(found)
    }
}

/// # Safety
/// `resource` must belong to a result that is still alive.
unsafe fn entries(resource: *const native::rd_kafka_ConfigResource_t) -> HashMap<String, String> {
    let mut count = 0;
    // SAFETY: the caller keeps the result alive during this call, and librdkafka gives the number of entries.
    unsafe {
        let entries = native::rd_kafka_ConfigResource_configs(resource, &raw mut count);
        (0..count)
            .filter_map(|at| {
                let entry = *entries.add(at);
                let value = native::rd_kafka_ConfigEntry_value(entry);
                (!value.is_null()).then(|| (text(native::rd_kafka_ConfigEntry_name(entry)), text(value)))
            })
            .collect()
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
