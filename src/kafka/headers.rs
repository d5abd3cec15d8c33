//! Record headers as the bytes that they are.
//!
//! A header's key is UTF-8 by Kafka's protocol, but brokers don't check it, and rdkafka panics when it reads one that isn't
//! ([`rdkafka::message::Headers::iter`] and `get` unwrap). Anyone who may write to a topic could stop every consumer with
//! one byte. So headers are read and added here through librdkafka itself, and nowhere else by rdkafka's own reading.

#![expect(unsafe_code, reason = "librdkafka's own functions are the only way to read a key that isn't UTF-8")]

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_header_cnt, rd_kafka_header_get_all, rd_kafka_headers_t};
use rdkafka::message::{BorrowedHeaders, OwnedHeaders};
use rdkafka::types::RDKafkaErrorCode;

/// One header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its key, up to its first NUL.
    pub key: &'a [u8],
    /// Its value; None for null.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// Whether it has that name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.key == name.as_bytes()
    }

    /// Its value where that is text.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.value?).ok()
    }
}

/// All headers, in their order.
pub fn all(headers: Option<&BorrowedHeaders>) -> impl Iterator<Item = Header<'_>> {
    // SAFETY: a `BorrowedHeaders` is never made but from a pointer to librdkafka's list, which lives as long as it does.
    let count = headers.map_or(0, |headers| unsafe { rd_kafka_header_cnt(native(headers)) });
    (0..count).filter_map(move |at| get(headers?, at))
}

/// Bytes of all keys and values.
#[must_use]
pub fn bytes(headers: Option<&BorrowedHeaders>) -> usize {
    all(headers).map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum()
}

/// The text of the last header of a name; None where there is none, or it isn't text.
#[must_use]
pub fn last<'a>(headers: Option<&'a BorrowedHeaders>, name: &str) -> Option<&'a str> {
    all(headers).filter(|header| header.is(name)).last()?.text()
}

/// Adds a header behind the others.
pub fn add(headers: &mut OwnedHeaders, key: &[u8], value: Option<&[u8]>) {
    let value_at = value.map_or(ptr::null(), |value| value.as_ptr().cast::<c_void>());
    // SAFETY: the list belongs to `headers`, which is borrowed for this call alone; librdkafka copies key and value.
    let error = unsafe {
        rd_kafka_header_add(
            native(headers.as_borrowed()).cast_mut(),
            key.as_ptr().cast::<c_char>(),
            isize::try_from(key.len()).expect("a slice is no longer than that"),
            value_at,
            isize::try_from(value.map_or(0, <[u8]>::len)).expect("a slice is no longer than that"),
        )
    };
    debug_assert_eq!(RDKafkaErrorCode::from(error), RDKafkaErrorCode::NoError, "owned headers can be added to");
}

fn native(headers: &BorrowedHeaders) -> *const rd_kafka_headers_t {
    ptr::from_ref(headers).cast()
}

fn get(headers: &BorrowedHeaders, at: usize) -> Option<Header<'_>> {
    let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the list outlives `headers`, and so do the key and the value that it points to; a key ends with a NUL, and
    // a value that isn't null has `size` bytes.
    unsafe {
        let error = rd_kafka_header_get_all(native(headers), at, &raw mut name, &raw mut value, &raw mut size);
        if RDKafkaErrorCode::from(error) != RDKafkaErrorCode::NoError || name.is_null() {
            return None;
        }
        let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
        Some(Header { key: CStr::from_ptr(name).to_bytes(), value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_header_of_a_name_counts_and_null_is_no_text() {
        let mut headers = OwnedHeaders::new();
        add(&mut headers, b"a", Some(b"1"));
        add(&mut headers, b"\xff", Some(b"x"));
        add(&mut headers, b"a", Some(b"2"));
        add(&mut headers, b"b", None);
        assert_eq!(last(Some(headers.as_borrowed()), "a"), Some("2"));
        assert_eq!(last(Some(headers.as_borrowed()), "b"), None);
        assert_eq!(last(None, "a"), None);
    }

    proptest! {
        #[test]
        fn headers_come_back_whatever_bytes_they_have(
            written in prop::collection::vec((prop::collection::vec(1_u8.., 0..20), prop::option::of(prop::collection::vec(any::<u8>(), 0..40))), 0..20),
        ) {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &written {
                add(&mut headers, key, value.as_deref());
            }
            let copy = headers.as_borrowed().detach();
            let read: Vec<_> = all(Some(copy.as_borrowed())).map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(read, written);
        }
    }
}
