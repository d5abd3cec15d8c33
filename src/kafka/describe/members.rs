//! Asks the broker which partitions the members of a group have.

use std::collections::HashSet;
use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};

use super::{ask, is_error, text};

/// Partitions, by topic and number.
pub type Partitions = HashSet<(String, i32)>;

/// Returns the partitions that the members of `group` have. None if nobody can say: the broker doesn't know the group, or
/// the group rebalances, for which some brokers name no assignments. Blocks for at most `timeout`.
///
/// # Errors
/// Returns the message of the broker or of librdkafka.
pub fn assigned<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Option<Partitions>, String> {
    let name = CString::new(group).map_err(|_| "a group's name has no NUL".to_owned())?;
    let mut pointers = [name.as_ptr()];
    // SAFETY: the client outlives this function. The call copies the name. The event owns the result, from which
    // everything is copied. The options may be null, and then the client's own timeouts hold.
    unsafe {
        let client = client.native_ptr();
        let send = |queue| {
            native::rd_kafka_DescribeConsumerGroups(client, pointers.as_mut_ptr(), 1, std::ptr::null(), queue);
        };
        ask(client, timeout, send, |event| {
            let result = native::rd_kafka_event_DescribeConsumerGroups_result(event);
            if result.is_null() {
                return Err("the answer isn't one to DescribeConsumerGroups".to_owned());
            }
            let mut count = 0;
            let groups = native::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            if count == 0 {
                return Ok(None);
            }
            let group = *groups;
            let error = native::rd_kafka_ConsumerGroupDescription_error(group);
            if !error.is_null() && is_error(native::rd_kafka_error_code(error)) {
                return Err(text(native::rd_kafka_error_string(error)));
            }
            use native::rd_kafka_consumer_group_state_t as State;
            Ok(match native::rd_kafka_ConsumerGroupDescription_state(group) {
                State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE | State::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY => {
                    Some(of_members(group))
                }
                _ => None,
            })
        })
    }
}

/// # Safety
/// `group` must be valid.
unsafe fn of_members(group: *const native::rd_kafka_ConsumerGroupDescription_t) -> Partitions {
    let mut all = Partitions::new();
    // SAFETY: the caller guarantees it, and indexes stay below the counts. The description owns the lists.
    unsafe {
        for at in 0..native::rd_kafka_ConsumerGroupDescription_member_count(group) {
            let member = native::rd_kafka_ConsumerGroupDescription_member(group, at);
            let assignment = native::rd_kafka_MemberDescription_assignment(member);
            if assignment.is_null() {
                continue;
            }
            let list = native::rd_kafka_MemberAssignment_partitions(assignment);
            if list.is_null() || (*list).elems.is_null() {
                continue;
            }
            for number in 0..usize::try_from((*list).cnt).unwrap_or(0) {
                let element = &*(*list).elems.add(number);
                all.insert((text(element.topic), element.partition));
            }
        }
    }
    all
}
