//! The `Retry-After` header of an endpoint's answer.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use optio_webhooks::fuzzing::read_retry_after;

fuzz_target!(|input: (i64, u32, &str)| {
    let (now_ms, max_s, value) = input;
    let max = Duration::from_secs(max_s.into());
    let read = read_retry_after(value, now_ms, max);
    if let Some(pause) = read {
        assert!(pause <= max, "a pause is capped");
    }
    assert_eq!(read, read_retry_after(&format!(" {value}\t"), now_ms, max), "space around the value is ignored");
    if let Ok(seconds) = value.parse::<u64>()
        && !value.starts_with('+')
    {
        assert_eq!(read, Some(Duration::from_secs(seconds).min(max)), "a number is seconds");
    }
});
