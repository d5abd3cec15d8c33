//! The note in the metadata of a commit. Anyone who may commit for the group can write any text there.
//!
//! The input is eight bytes of an offset, and the metadata.

#![no_main]

use libfuzzer_sys::fuzz_target;
use optio_webhooks::fuzzing::Watermark;
use optio_webhooks::fuzzing::commit_note::{METADATA_MAX, decode, encode};

fuzz_target!(|input: (u64, &str)| {
    let (offset, metadata) = input;
    // Kafka's offsets are never negative.
    let offset = (offset >> 1).cast_signed();
    let Some(note) = decode(metadata, offset) else { return };
    let mut at = offset;
    for (first, last) in &note.settled {
        assert!(*first > at && last >= first, "the runs ascend, above the commit");
        assert!(note.is_settled(*first) && note.is_settled(*last));
        at = *last;
    }
    assert!(!note.is_settled(offset), "the committed offset itself is open");
    if let Some(end) = at.checked_add(1) {
        assert!(!note.is_settled(end));
    }
    let watermark = Watermark { offset, stamp_ms: note.stamp_ms, settled_above: note.settled.clone() };
    let written = encode(&watermark);
    assert!(written.len() <= METADATA_MAX);
    let read = decode(&written, offset).expect("a note that was written can be read");
    assert_eq!(read.stamp_ms, note.stamp_ms);
    assert!(note.settled.starts_with(&read.settled), "runs are left out only at the end");
    if metadata.len() < METADATA_MAX / 2 {
        assert_eq!(read, note, "a short note is written as a whole");
    }
});
