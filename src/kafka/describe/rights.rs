//! Asks the broker which operations it allows this process on topics and groups (KIP-430, "authorized operations").

use std::collections::HashMap;
use std::ffi::CString;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::ClientContext;
use rdkafka::types::RDKafkaErrorCode;

use super::{ask, text};
use crate::kafka::rights::Operation;

/// What the broker says about one topic or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// The operations that it allows.
    Only(Vec<Operation>),
    /// There is no such topic.
    Missing,
    /// The broker's reason why it doesn't say.
    Unknown(String),
}

/// Asks for the rights on `topics`. Blocks for at most `timeout`. A topic that the answer leaves out is not in the
/// result.
///
/// # Errors
/// Returns the message of the broker or of librdkafka if the whole request fails.
pub fn on_topics<C: ClientContext>(
    client: &AdminClient<C>,
    topics: &[&str],
    timeout: Duration,
) -> Result<HashMap<String, Allowed>, String> {
    let names: Vec<CString> = topics.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the client outlives this function. The call copies the names. The event owns the result, from which
    // everything is copied. The collection and the options are destroyed after their last use.
    unsafe {
        let client = client.inner().native_ptr();
        let collection = native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let options = with_operations(client, native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let send = |queue| native::rd_kafka_DescribeTopics(client, collection, options, queue);
        let answer = ask(client, timeout, send, |event| {
            let result = native::rd_kafka_event_DescribeTopics_result(event);
            if result.is_null() {
                return Err("the answer isn't one to DescribeTopics".to_owned());
            }
            let mut count = 0;
            let topics = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            let of_one = |at| {
                let topic = *topics.add(at);
                let mut operations = 0;
                let first = native::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut operations);
                let allowed = allowed(native::rd_kafka_TopicDescription_error(topic), first, operations);
                (text(native::rd_kafka_TopicDescription_name(topic)), allowed)
            };
            Ok((0..count).map(of_one).collect())
        });
        native::rd_kafka_AdminOptions_destroy(options);
        native::rd_kafka_TopicCollection_destroy(collection);
        answer
    }
}

/// Asks for the rights on `groups`, in the same way as [`on_topics`]. A group need not exist.
///
/// # Errors
/// As [`on_topics`].
pub fn on_groups<C: ClientContext>(
    client: &AdminClient<C>,
    groups: &[&str],
    timeout: Duration,
) -> Result<HashMap<String, Allowed>, String> {
    let names: Vec<CString> = groups.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: as in `on_topics`.
    unsafe {
        let client = client.inner().native_ptr();
        let options = with_operations(client, native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS);
        let send = |queue| {
            native::rd_kafka_DescribeConsumerGroups(client, pointers.as_mut_ptr(), pointers.len(), options, queue);
        };
        let answer = ask(client, timeout, send, |event| {
            let result = native::rd_kafka_event_DescribeConsumerGroups_result(event);
            if result.is_null() {
                return Err("the answer isn't one to DescribeConsumerGroups".to_owned());
            }
            let mut count = 0;
            let groups = native::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            let of_one = |at| {
                let group = *groups.add(at);
                let mut operations = 0;
                let first = native::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &raw mut operations);
                let allowed = allowed(native::rd_kafka_ConsumerGroupDescription_error(group), first, operations);
                (text(native::rd_kafka_ConsumerGroupDescription_group_id(group)), allowed)
            };
            Ok((0..count).map(of_one).collect())
        });
        native::rd_kafka_AdminOptions_destroy(options);
        answer
    }
}

/// Options of a request whose answer has the authorized operations.
///
/// # Safety
/// `client` must be valid. The caller destroys the options.
unsafe fn with_operations(
    client: *mut native::rd_kafka_t,
    request: native::rd_kafka_admin_op_t,
) -> *mut native::rd_kafka_AdminOptions_t {
    // SAFETY: the caller guarantees a valid client, and the options are valid.
    unsafe {
        let options = native::rd_kafka_AdminOptions_new(client, request);
        let error = native::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
        if !error.is_null() {
            native::rd_kafka_error_destroy(error);
        }
        options
    }
}

/// # Safety
/// `error` must be null or valid, and `first` must point to `count` operations or be null.
unsafe fn allowed(
    error: *const native::rd_kafka_error_t,
    first: *const native::rd_kafka_AclOperation_t,
    count: usize,
) -> Allowed {
    // SAFETY: the caller guarantees it.
    unsafe {
        let code = if error.is_null() {
            RDKafkaErrorCode::NoError
        } else {
            RDKafkaErrorCode::from(native::rd_kafka_error_code(error))
        };
        match code {
            RDKafkaErrorCode::NoError if first.is_null() => {
                Allowed::Unknown("the broker doesn't say; brokers before 2.3 can't".to_owned())
            }
            RDKafkaErrorCode::NoError => {
                Allowed::Only((0..count).filter_map(|at| Operation::of(*first.add(at))).collect())
            }
            RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed => {
                Allowed::Only(Vec::new())
            }
            RDKafkaErrorCode::UnknownTopicOrPartition => Allowed::Missing,
            _ => Allowed::Unknown(text(native::rd_kafka_error_string(error))),
        }
    }
}
