//! Record headers as raw bytes.
//!
//! Kafka's protocol says that a header's key is UTF-8, but brokers don't check it. rdkafka panics when it reads a key
//! that isn't UTF-8: [`rdkafka::message::Headers::iter`] and `get` unwrap. Anyone who may write to a topic could stop
//! every consumer with one byte. So this program reads and adds headers only here, through librdkafka's functions.

#![expect(unsafe_code, reason = "librdkafka's own functions are the only way to read a key that isn't UTF-8")]

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_header_cnt, rd_kafka_header_get_all, rd_kafka_headers_t};
use rdkafka::message::{BorrowedHeaders, OwnedHeaders};
use rdkafka::types::RDKafkaErrorCode;

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key, up to its first NUL.
    pub key: &'a [u8],
    /// The value; `None` for null.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// Whether `name` is the key.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.key == name.as_bytes()
    }

    /// The value, if it is UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.value?).ok()
    }
}

/// Iterates over all headers in the order of the record.
pub fn all(headers: Option<&BorrowedHeaders>) -> impl Iterator<Item = Header<'_>> {
    // SAFETY: a `BorrowedHeaders` is only made from a pointer to librdkafka's list, which lives at least as long.
    let count = headers.map_or(0, |headers| unsafe { rd_kafka_header_cnt(native(headers)) });
    (0..count).filter_map(move |at| get(headers?, at))
}

/// The total size of all keys and values, in bytes.
#[must_use]
pub fn bytes(headers: Option<&BorrowedHeaders>) -> usize {
    all(headers).map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum()
}

/// Returns the value of the last header with this name. Returns `None` if there is none, or if its value isn't UTF-8.
#[must_use]
pub fn last<'a>(headers: Option<&'a BorrowedHeaders>, name: &str) -> Option<&'a str> {
    all(headers).filter(|header| header.is(name)).last()?.text()
}

/// Appends a header.
pub fn add(headers: &mut OwnedHeaders, key: &[u8], value: Option<&[u8]>) {
    let value_ptr = value.map_or(ptr::null(), |value| value.as_ptr().cast::<c_void>());
    // SAFETY: the list belongs to `headers`, which this call borrows exclusively. librdkafka copies the key and the
    // value.
    let error = unsafe {
        rd_kafka_header_add(
            native(headers.as_borrowed()).cast_mut(),
            key.as_ptr().cast::<c_char>(),
            isize::try_from(key.len()).expect("a slice has at most isize::MAX bytes"),
            value_ptr,
            isize::try_from(value.map_or(0, <[u8]>::len)).expect("a slice has at most isize::MAX bytes"),
        )
    };
    debug_assert_eq!(RDKafkaErrorCode::from(error), RDKafkaErrorCode::NoError, "owned headers can be appended to");
}

fn native(headers: &BorrowedHeaders) -> *const rd_kafka_headers_t {
    ptr::from_ref(headers).cast()
}

fn get(headers: &BorrowedHeaders, at: usize) -> Option<Header<'_>> {
    let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the list lives at least as long as `headers`, and so do the key and the value that it points to. A key
    // ends with a NUL. A value that isn't null has `size` bytes.
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
    fn the_last_header_of_a_name_counts_and_null_is_not_text() {
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
        fn headers_with_any_bytes_are_read_as_they_were_written(
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
