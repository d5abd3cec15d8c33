//! The note in the metadata of a commit. It shows that the commit comes from a worker, and lists the settled offsets
//! above it.
//!
//! A note is `2:` and the base64 of variable-length integers. They are the committed offset, whether the record there
//! was read, its timestamp if so, and for each run of settled offsets its distance from the previous run and its
//! length. If the broker names leader epochs, a last run at an offset that no log reaches has as its length the highest
//! epoch of a record that was read. Earlier versions treat it as any other run, which does no harm.
//!
//! A new owner trusts the note only if the record at the watermark has that timestamp, because a topic that was deleted
//! and created again has other records. It doesn't trust the note about a record with a higher leader epoch: the end of
//! the log was lost in an election, and that record was written since.
//!
//! A commit without such a note is foreign, for example an operator's reset. Everything known about offsets at or above
//! a foreign commit is void.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::Watermark;

/// The largest metadata of a commit, in bytes: Kafka's default of `offset.metadata.max.bytes`. Brokers refuse more.
pub const METADATA_MAX: usize = 4_096;
const VERSION: &str = "2:";
/// The prefix of notes by earlier versions. They lack the offset, and exist only if something above it is settled.
const PREVIOUS_VERSION: &str = "1:";
/// The first offset of the run whose length is the leader epoch. With a million records a second, a log reaches it after
/// 146,000 years.
const EPOCH_AT: i64 = 1 << 62;
/// The most bytes of that run: its distance, and its length.
const EPOCH_BYTES_MAX: usize = 9 + 5;
/// The most bytes that fit into a note. Base64 turns three bytes into four.
const BYTES_MAX: usize = (METADATA_MAX - VERSION.len()) / 4 * 3;

/// The note of the previous owner about the offsets from its watermark on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommitNote {
    /// The timestamp of the record at the watermark in Unix milliseconds, or `None` if it wasn't read.
    pub stamp_ms: Option<i64>,
    /// The settled offsets, as ascending runs (first, last).
    pub settled: Vec<(i64, i64)>,
    /// The highest leader epoch of a record that the previous owner read, if it is known.
    pub epoch: Option<i32>,
}

/// Encodes the note for a commit. Runs that don't fit are left out, the highest first.
#[must_use]
pub fn encode(watermark: &Watermark) -> String {
    let mut bytes = Vec::with_capacity(64);
    write_varint(&mut bytes, watermark.offset.cast_unsigned());
    write_varint(&mut bytes, u64::from(watermark.stamp_ms.is_some()));
    if let Some(stamp_ms) = watermark.stamp_ms {
        write_varint(&mut bytes, stamp_ms.cast_unsigned());
    }
    let mut at = watermark.offset;
    for (first, last) in &watermark.settled_above {
        let before = bytes.len();
        write_varint(&mut bytes, (first - at).cast_unsigned());
        write_varint(&mut bytes, (last - first).cast_unsigned());
        if bytes.len() > BYTES_MAX - EPOCH_BYTES_MAX {
            bytes.truncate(before);
            break;
        }
        at = *last;
    }
    // Without runs, nothing depends on the epoch.
    let epoch = watermark.epoch.and_then(|epoch| u64::try_from(epoch).ok());
    if let Some(epoch) = epoch.filter(|_| !watermark.settled_above.is_empty() && at < EPOCH_AT) {
        write_varint(&mut bytes, (EPOCH_AT - at).cast_unsigned());
        write_varint(&mut bytes, epoch);
    }
    format!("{VERSION}{}", STANDARD_NO_PAD.encode(bytes))
}

/// Decodes the note of a commit at `offset`. Returns `None` if a worker didn't write it, or wrote it for another
/// offset.
#[must_use]
pub fn decode(metadata: &str, offset: i64) -> Option<CommitNote> {
    if let Some(encoded) = metadata.strip_prefix(PREVIOUS_VERSION) {
        let bytes = STANDARD_NO_PAD.decode(encoded).ok()?;
        let mut rest = bytes.as_slice();
        let stamp_ms = read_varint(&mut rest)?.cast_signed();
        return Some(CommitNote { stamp_ms: Some(stamp_ms), settled: runs(rest, offset)?, epoch: None });
    }
    let bytes = STANDARD_NO_PAD.decode(metadata.strip_prefix(VERSION)?).ok()?;
    let mut rest = bytes.as_slice();
    if read_varint(&mut rest)?.cast_signed() != offset {
        return None;
    }
    let stamp_ms = match read_varint(&mut rest)? {
        0 => None,
        1 => Some(read_varint(&mut rest)?.cast_signed()),
        _ => return None,
    };
    let mut settled = runs(rest, offset)?;
    let epoch = settled.pop_if(|(first, _)| *first == EPOCH_AT).map(|(first, last)| i32::try_from(last - first));
    Some(CommitNote { stamp_ms, settled, epoch: epoch.transpose().ok()? })
}

/// Reads the runs above `offset`. Returns `None` if they don't ascend, because no worker writes such a note.
fn runs(mut rest: &[u8], offset: i64) -> Option<Vec<(i64, i64)>> {
    let mut settled = Vec::new();
    let mut at = offset;
    while !rest.is_empty() {
        let first = at.checked_add_unsigned(read_varint(&mut rest)?).filter(|first| *first > at)?;
        let last = first.checked_add_unsigned(read_varint(&mut rest)?)?;
        settled.push((first, last));
        at = last;
    }
    Some(settled)
}

impl CommitNote {
    /// Whether the record at `offset` with this leader epoch is settled according to the note.
    #[must_use]
    pub fn is_settled_in(&self, offset: i64, epoch: Option<i32>) -> bool {
        let is_newer = epoch.zip(self.epoch).is_some_and(|(epoch, noted)| epoch > noted);
        !is_newer && self.is_settled(offset)
    }

    /// Whether `offset` is settled according to the note, if the log is the same.
    #[must_use]
    pub fn is_settled(&self, offset: i64) -> bool {
        let at = self.settled.partition_point(|(_, last)| *last < offset);
        self.settled.get(at).is_some_and(|(first, _)| *first <= offset)
    }
}

/// Appends an integer in the variable-length encoding LEB128.
fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
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
    fn foreign_metadata_is_not_read_as_a_note() {
        for metadata in ["", "checkpoint", "1:!!", "1:gA", "2:", "2:gA", "2:BQI"] {
            assert_eq!(decode(metadata, 5), None, "{metadata}");
        }
        let note = encode(&Watermark { offset: 5, stamp_ms: None, settled_above: vec![], epoch: Some(7) });
        assert_eq!(decode(&note, 5), Some(CommitNote { stamp_ms: None, settled: vec![], epoch: None }));
        assert_eq!(decode(&note, 4), None, "this note was copied to another offset");
    }

    #[test]
    fn a_note_of_the_previous_version_is_read() {
        let mut bytes = Vec::new();
        for value in [77, 2, 3] {
            write_varint(&mut bytes, value);
        }
        let metadata = format!("{PREVIOUS_VERSION}{}", STANDARD_NO_PAD.encode(bytes));
        assert_eq!(decode(&metadata, 5), Some(CommitNote { stamp_ms: Some(77), settled: vec![(7, 10)], epoch: None }));
    }

    #[test]
    fn an_earlier_version_takes_the_epoch_for_a_run_of_offsets_that_never_exist() {
        let watermark = Watermark { offset: 5, stamp_ms: Some(77), settled_above: vec![(7, 10)], epoch: Some(3) };
        let note = encode(&watermark);
        assert_eq!(decode(&note, 5).unwrap().epoch, Some(3));
        // What it does with the bytes: the offset, the flag, the timestamp, and all the rest as runs.
        let bytes = STANDARD_NO_PAD.decode(note.strip_prefix(VERSION).unwrap()).unwrap();
        let mut rest = bytes.as_slice();
        assert_eq!([5, 1, 77], [(); 3].map(|()| read_varint(&mut rest).unwrap()));
        assert_eq!(runs(rest, 5), Some(vec![(7, 10), (EPOCH_AT, EPOCH_AT + 3)]));
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
        fn a_note_keeps_settled_offsets_and_fits_into_a_commit(
            offset in 0_i64..1 << 40, stamp in any::<i64>(), epoch in prop::option::of(0_i32..), steps in prop::collection::vec((1_i64..100_000, 0_i64..1_000), 1..3_000),
        ) {
            let mut settled_above = Vec::new();
            let mut at = offset;
            for (gap, length) in steps {
                settled_above.push((at + gap, at + gap + length));
                at += gap + length + 1;
            }
            let note = encode(&Watermark { offset, stamp_ms: Some(stamp), settled_above: settled_above.clone(), epoch });
            prop_assert!(note.len() <= METADATA_MAX);
            let read = decode(&note, offset).unwrap();
            prop_assert_eq!((read.stamp_ms, read.epoch), (Some(stamp), epoch));
            // Runs that don't fit are left out at the end, and the others are unchanged.
            prop_assert!(!read.settled.is_empty() && settled_above.starts_with(&read.settled));
            prop_assert!(!read.is_settled(offset) && read.is_settled(read.settled[0].0));
        }
    }
}
