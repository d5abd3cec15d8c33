//! Reads the settings of topics from the broker.
//!
//! rdkafka's `describe_configs` drops the error of a single topic, so that a refusal looks like a topic without
//! settings. This module calls librdkafka directly and keeps that error.

use std::collections::HashMap;
use std::ffi::CString;
use std::ptr;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::ClientContext;

use super::{ask, is_error, text};

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
    // SAFETY: the client outlives this function. The call copies the resources, which are destroyed after it. The event
    // owns the result and its strings, and `read` copies them.
    unsafe {
        let client = client.inner().native_ptr();
        let mut resources: Vec<_> = names
            .iter()
            .map(|name| {
                native::rd_kafka_ConfigResource_new(
                    native::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
                    name.as_ptr(),
                )
            })
            .collect();
        let send = |queue| {
            native::rd_kafka_DescribeConfigs(client, resources.as_mut_ptr(), resources.len(), ptr::null(), queue);
        };
        let answer = ask(client, timeout, send, |event| read(event));
        native::rd_kafka_ConfigResource_destroy_array(resources.as_mut_ptr(), resources.len());
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
