//! How an attempt is stored: its `meta` and the payload in one field, compressed.
//!
//! An entry is written for each attempt, and most of its text is the same in all of them: the names of fields, the words of
//! states, the ids that stand in `meta` and in the payload again. LZ4 with a dictionary of such text takes a typical entry from
//! 1,070 bytes to 450, for a few microseconds.

use std::cell::RefCell;

use lz4_flex::block;
use serde::Serialize;

/// The text that entries are likely to repeat. Stored entries can be read only with the same text, so a change of it needs
/// another [`VERSION`].
const DICTIONARY: &[u8] = include_bytes!("dictionary.txt");
/// The first byte of an entry.
const VERSION: u8 = 1;
/// The version, the length of `meta`, and the length of the payload.
const HEAD: usize = 9;
/// LZ4 takes at least one byte for each 255 of the text. An entry that claims more text was not written by this program, and
/// no memory is taken for it.
const RATIO_MAX: usize = 255;

/// The memory that each thread keeps for the next entry, in bytes. An entry that takes more gets memory of its own.
const SCRATCH_MAX: usize = 65_536;

thread_local! {
    /// The text of an entry, and the entry. An entry is packed for each attempt, and allocating and clearing memory for it
    /// would take longer than writing its text.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Packs an attempt for the field `packed` of its entry. `meta` serializes as JSON.
#[must_use]
pub fn pack(meta: &impl Serialize, payload: &[u8]) -> Vec<u8> {
    SCRATCH.with_borrow_mut(|(text, packed)| {
        text.clear();
        serde_json::to_writer(&mut *text, meta).expect("strings and numbers always serialize");
        let meta_len = text.len();
        text.extend_from_slice(payload);
        let size_max = HEAD + block::get_maximum_output_size(text.len());
        if packed.len() < size_max {
            packed.resize(size_max, 0);
        }
        packed[0] = VERSION;
        packed[1..5].copy_from_slice(&length(&text[..meta_len]));
        packed[5..HEAD].copy_from_slice(&length(payload));
        let compressed = block::compress_into_with_dict(text, &mut packed[HEAD..], DICTIONARY);
        let size = HEAD + compressed.expect("the buffer has the greatest size that a block can have");
        let entry = packed[..size].to_vec();
        if size_max > SCRATCH_MAX {
            (*text, *packed) = (Vec::new(), Vec::new());
        }
        entry
    })
}

/// An entry keeps at most 4 GiB of each; records and answers are bounded far below.
fn length(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// The `meta` and the payload of a packed attempt. None if this program did not write it.
#[must_use]
pub fn unpack(packed: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (head, compressed) = packed.split_at_checked(HEAD)?;
    let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?) as usize);
    let (meta, payload) = (number(1)?, number(5)?);
    let size = meta.checked_add(payload)?;
    if head[0] != VERSION || size > compressed.len().saturating_add(DICTIONARY.len()).saturating_mul(RATIO_MAX) {
        return None;
    }
    let mut text = block::decompress_with_dict(compressed, size, DICTIONARY).ok()?;
    if text.len() != size {
        return None;
    }
    let payload = text.split_off(meta);
    Some((text, payload))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_dictionary_belongs_to_the_version() {
        let known = 16_986_211_784_304_661_621;
        assert_eq!(xxhash_rust::xxh3::xxh3_64(DICTIONARY), known, "another dictionary needs another version");
    }

    #[test]
    fn a_claimed_size_takes_no_memory() {
        let mut packed = pack(&json!({}), b"{}");
        packed[5..HEAD].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(unpack(&packed), None);
        packed[5..HEAD].copy_from_slice(&3_u32.to_le_bytes());
        assert_eq!(unpack(&packed), None, "the lengths must be those of the text");
    }

    proptest! {
        #[test]
        fn what_is_packed_can_be_read(meta: String, payload: Vec<u8>, run in 0_usize..200_000) {
            let payload = [payload, vec![b'a'; run]].concat();
            for payload in [&payload[..], b"{}"] {
                let expected = (serde_json::to_vec(&meta).unwrap(), payload.to_vec());
                prop_assert_eq!(unpack(&pack(&meta, payload)), Some(expected));
            }
        }

        #[test]
        fn foreign_bytes_are_refused_or_read_without_a_panic(bytes: Vec<u8>) {
            let _ = unpack(&bytes);
            let _ = unpack(&[&[VERSION], &bytes[..]].concat());
            let mut packed = pack(&json!({ "event": "task.completed" }), b"{\"event\":\"task.completed\"}");
            for (at, byte) in bytes.iter().enumerate().take(packed.len()) {
                packed[at] ^= byte;
            }
            let _ = unpack(&packed);
        }
    }
}
