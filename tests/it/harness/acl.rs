//! Creates access control lists on a broker, which rdkafka doesn't support.

#![expect(unsafe_code, reason = "only librdkafka can create an ACL, not rdkafka")]

use std::ffi::CString;
use std::ptr;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;

use native::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW as ALLOW;

pub use native::rd_kafka_AclOperation_t::{
    RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS as DESCRIBE_CONFIGS, RD_KAFKA_ACL_OPERATION_WRITE as WRITE,
};

/// Denies everyone `operation` on the topics whose names begin with `prefix`. All other operations stay allowed.
pub fn deny(client: &AdminClient<DefaultClientContext>, prefix: &str, operation: native::rd_kafka_AclOperation_t) {
    use native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ALL as ALL;
    use native::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_DENY as DENY;
    use native::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_PREFIXED as PREFIXED;
    use native::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC as TOPIC;
    for (operation, permission) in [(ALL, ALLOW), (operation, DENY)] {
        create(client, "User:*", (TOPIC, PREFIXED, prefix), operation, permission);
    }
}

/// Carries out the commands of `kafka-acls.sh` in a text, and returns how many rules they make. Every option that it
/// doesn't know is an error.
pub fn allow(client: &AdminClient<DefaultClientContext>, commands: &str) -> usize {
    use native::rd_kafka_ResourcePatternType_t::{
        RD_KAFKA_RESOURCE_PATTERN_LITERAL as LITERAL, RD_KAFKA_RESOURCE_PATTERN_PREFIXED as PREFIXED,
    };
    use native::rd_kafka_ResourceType_t::{RD_KAFKA_RESOURCE_GROUP as GROUP, RD_KAFKA_RESOURCE_TOPIC as TOPIC};
    let mut count = 0;
    for command in commands.lines().filter_map(|line| line.strip_prefix("$acls ")) {
        let (mut principal, mut pattern) = (String::new(), LITERAL);
        let (mut operations, mut resources) = (Vec::new(), Vec::new());
        let words: Vec<&str> = command.split(' ').collect();
        for option in words.chunks(2) {
            match option {
                ["--allow-principal", name] => principal = (*name).to_owned(),
                ["--operation", name] => operations.push(operation(name)),
                ["--resource-pattern-type", "prefixed"] => pattern = PREFIXED,
                ["--topic", name] => resources.push((TOPIC, *name)),
                ["--group", name] => resources.push((GROUP, *name)),
                other => panic!("{other:?} in {command}"),
            }
        }
        for (kind, name) in &resources {
            for operation in &operations {
                create(client, &principal, (*kind, pattern, name), *operation, ALLOW);
                count += 1;
            }
        }
    }
    count
}

/// Removes every rule, so that everything is allowed again.
pub fn clear(client: &AdminClient<DefaultClientContext>) {
    use native::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ANY as ANY_OPERATION;
    use native::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ANY as ANY_PERMISSION;
    use native::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_ANY as ANY_PATTERN;
    use native::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_ANY as ANY_RESOURCE;
    let mut error = [0; 512];
    // SAFETY: librdkafka copies its arguments, and every object that this block creates is destroyed at its end. A null
    // name, principal or host matches any.
    unsafe {
        let client = client.inner().native_ptr();
        let queue = native::rd_kafka_queue_new(client);
        let mut filter = native::rd_kafka_AclBindingFilter_new(
            ANY_RESOURCE,
            ptr::null(),
            ANY_PATTERN,
            ptr::null(),
            ptr::null(),
            ANY_OPERATION,
            ANY_PERMISSION,
            error.as_mut_ptr(),
            error.len(),
        );
        assert!(!filter.is_null(), "librdkafka refused the filter");
        native::rd_kafka_DeleteAcls(client, &raw mut filter, 1, ptr::null(), queue);
        let event = native::rd_kafka_queue_poll(queue, 30_000);
        assert!(!event.is_null(), "the broker did not answer");
        assert_eq!(RDKafkaErrorCode::from(native::rd_kafka_event_error(event)), RDKafkaErrorCode::NoError);
        let mut count = 0;
        let deleted = native::rd_kafka_event_DeleteAcls_result(event);
        let responses = native::rd_kafka_DeleteAcls_result_responses(deleted, &raw mut count);
        assert_eq!(count, 1);
        let error = native::rd_kafka_DeleteAcls_result_response_error(*responses);
        assert!(error.is_null(), "the broker refused to delete the ACLs");
        native::rd_kafka_event_destroy(event);
        native::rd_kafka_AclBinding_destroy(filter);
        native::rd_kafka_queue_destroy(queue);
    }
}

fn operation(name: &str) -> native::rd_kafka_AclOperation_t {
    use native::rd_kafka_AclOperation_t::{
        RD_KAFKA_ACL_OPERATION_DESCRIBE as DESCRIBE, RD_KAFKA_ACL_OPERATION_READ as READ,
    };
    match name {
        "Read" => READ,
        "Write" => WRITE,
        "Describe" => DESCRIBE,
        "DescribeConfigs" => DESCRIBE_CONFIGS,
        _ => panic!("{name} is no operation that the tests know"),
    }
}

type Resource<'a> = (native::rd_kafka_ResourceType_t, native::rd_kafka_ResourcePatternType_t, &'a str);

fn create(
    client: &AdminClient<DefaultClientContext>,
    principal: &str,
    (kind, pattern, name): Resource<'_>,
    operation: native::rd_kafka_AclOperation_t,
    permission: native::rd_kafka_AclPermissionType_t,
) {
    let (name, principal, host) =
        (CString::new(name).unwrap(), CString::new(principal).unwrap(), CString::new("*").unwrap());
    let mut error = [0; 512];
    // SAFETY: librdkafka copies its arguments. The results belong to the event and are read before it is destroyed.
    // Every object that this block creates is destroyed at its end.
    unsafe {
        let client = client.inner().native_ptr();
        let queue = native::rd_kafka_queue_new(client);
        let mut acl = native::rd_kafka_AclBinding_new(
            kind,
            name.as_ptr(),
            pattern,
            principal.as_ptr(),
            host.as_ptr(),
            operation,
            permission,
            error.as_mut_ptr(),
            error.len(),
        );
        assert!(!acl.is_null(), "librdkafka refused the ACL");
        native::rd_kafka_CreateAcls(client, &raw mut acl, 1, ptr::null(), queue);
        let event = native::rd_kafka_queue_poll(queue, 30_000);
        assert!(!event.is_null(), "the broker did not answer");
        assert_eq!(RDKafkaErrorCode::from(native::rd_kafka_event_error(event)), RDKafkaErrorCode::NoError);
        let mut count = 0;
        let results =
            native::rd_kafka_CreateAcls_result_acls(native::rd_kafka_event_CreateAcls_result(event), &raw mut count);
        assert_eq!(count, 1);
        assert!(native::rd_kafka_acl_result_error(*results).is_null(), "the broker refused the ACL");
        native::rd_kafka_event_destroy(event);
        native::rd_kafka_AclBinding_destroy(acl);
        native::rd_kafka_queue_destroy(queue);
    }
}
