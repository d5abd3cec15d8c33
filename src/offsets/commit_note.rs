//! The note that travels in a commit's metadata: that the commit is ours, and which offsets above it are settled.
//!
//! `2:` and base64 of variable-length integers: the committed offset, whether the record there was read and its timestamp,
//! then for each run of settled offsets its distance from the last and its length. A new owner trusts the note only if
//! the record at the watermark has that timestamp: a topic that was deleted and made anew has other records. A commit
//! without a note of ours is somebody else's, an operator's reset for one, and what is known of offsets at or above it is
//! void.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::Watermark;

/// Brokers refuse commits with more metadata (`offset.metadata.max.bytes`).
pub const METADATA_MAX: usize = 4_096;
const VERSION: &str = "2:";
/// Written by versions before: without the offset, and only where something is settled above it.
const VERSION_BEFORE: &str = "1:";
/// Base64 makes four bytes of three.
const BYTES_MAX: usize = (METADATA_MAX - VERSION.len()) / 4 * 3;

/// What a predecessor knew of offsets at and above its watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitNote {
    /// Timestamp of the record at the watermark, Unix milliseconds; None where it wasn't read.
    pub stamp_ms: Option<i64>,
    /// Runs of settled offsets (first, last), ascending.
    pub settled: Vec<(i64, i64)>,
}

/// The note for a commit. What doesn't fit is left off from the top.
#[must_use]
pub fn encode(watermark: &Watermark) -> String {
    let mut bytes = Vec::with_capacity(64);
    put(&mut bytes, watermark.offset.cast_unsigned());
    put(&mut bytes, u64::from(watermark.stamp_ms.is_some()));
    if let Some(stamp_ms) = watermark.stamp_ms {
        put(&mut bytes, stamp_ms.cast_unsigned());
    }
    let mut at = watermark.offset;
    for (first, last) in &watermark.settled_above {
        let before = bytes.len();
        put(&mut bytes, (first - at).cast_unsigned());
        put(&mut bytes, (last - first).cast_unsigned());
        if bytes.len() > BYTES_MAX {
            bytes.truncate(before);
            break;
        }
        at = *last;
    }
    format!("{VERSION}{}", STANDARD_NO_PAD.encode(bytes))
}

/// Reads the note of a commit at `offset`; None if it is not one of ours, or of another offset.
#[must_use]
pub fn decode(metadata: &str, offset: i64) -> Option<CommitNote> {
    if let Some(encoded) = metadata.strip_prefix(VERSION_BEFORE) {
        let bytes = STANDARD_NO_PAD.decode(encoded).ok()?;
        let mut rest = bytes.as_slice();
        let stamp_ms = take(&mut rest)?.cast_signed();
        return Some(CommitNote { stamp_ms: Some(stamp_ms), settled: runs(rest, offset)? });
    }
    let bytes = STANDARD_NO_PAD.decode(metadata.strip_prefix(VERSION)?).ok()?;
    let mut rest = bytes.as_slice();
    if take(&mut rest)?.cast_signed() != offset {
        return None;
    }
    let stamp_ms = match take(&mut rest)? {
        0 => None,
        1 => Some(take(&mut rest)?.cast_signed()),
        _ => return None,
    };
    Some(CommitNote { stamp_ms, settled: runs(rest, offset)? })
}

/// The runs above `offset`; None unless they ascend, as all of ours do.
fn runs(mut rest: &[u8], offset: i64) -> Option<Vec<(i64, i64)>> {
    let mut settled = Vec::new();
    let mut at = offset;
    while !rest.is_empty() {
        let first = at.checked_add_unsigned(take(&mut rest)?).filter(|first| *first > at)?;
        let last = first.checked_add_unsigned(take(&mut rest)?)?;
        settled.push((first, last));
        at = last;
    }
    Some(settled)
}

impl CommitNote {
    /// Whether the note says that `offset` is settled.
    #[must_use]
    pub fn is_settled(&self, offset: i64) -> bool {
        let at = self.settled.partition_point(|(_, last)| *last < offset);
        self.settled.get(at).is_some_and(|(first, _)| *first <= offset)
    }
}

/// LEB128.
fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_note_of_someone_else_is_not_ours() {
        for metadata in ["", "checkpoint", "1:!!", "1:gA", "2:", "2:gA", "2:BQI"] {
            assert_eq!(decode(metadata, 5), None, "{metadata}");
        }
        let note = encode(&Watermark { offset: 5, stamp_ms: None, settled_above: vec![] });
        assert_eq!(decode(&note, 5), Some(CommitNote { stamp_ms: None, settled: vec![] }));
        assert_eq!(decode(&note, 4), None, "a note that was copied to another offset");
    }

    #[test]
    fn a_note_of_the_version_before_is_read() {
        let mut bytes = Vec::new();
        for value in [77, 2, 3] {
            put(&mut bytes, value);
        }
        let metadata = format!("{VERSION_BEFORE}{}", STANDARD_NO_PAD.encode(bytes));
        assert_eq!(decode(&metadata, 5), Some(CommitNote { stamp_ms: Some(77), settled: vec![(7, 10)] }));
    }

    proptest! {
        #[test]
        fn any_metadata_is_read_without_a_panic(metadata in "(1:|2:)?[A-Za-z0-9+/]{0,60}|.*", offset in any::<i64>(), asked in any::<i64>()) {
            if let Some(note) = decode(&metadata, offset) {
                prop_assert!(!note.is_settled(offset));
                let _ = note.is_settled(asked);
            }
        }

        #[test]
        fn a_note_says_what_was_settled_and_fits_a_commit(
            offset in 0_i64..1 << 40, stamp in any::<i64>(), steps in prop::collection::vec((1_i64..100_000, 0_i64..1_000), 1..3_000),
        ) {
            let mut settled_above = Vec::new();
            let mut at = offset;
            for (gap, length) in steps {
                settled_above.push((at + gap, at + gap + length));
                at += gap + length + 1;
            }
            let note = encode(&Watermark { offset, stamp_ms: Some(stamp), settled_above: settled_above.clone() });
            prop_assert!(note.len() <= METADATA_MAX);
            let read = decode(&note, offset).unwrap();
            prop_assert_eq!(read.stamp_ms, Some(stamp));
            // A prefix: what doesn't fit is left off, never bent.
            prop_assert!(!read.settled.is_empty() && settled_above.starts_with(&read.settled));
            prop_assert!(!read.is_settled(offset) && read.is_settled(read.settled[0].0));
        }
    }
}
