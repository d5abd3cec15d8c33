//! The id of a log entry, which Redis assigns.

/// The id of a log entry: a time in Unix milliseconds and a sequence number, written as `1742983954000-0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct EntryId {
    ms: u64,
    number: u64,
}

impl EntryId {
    /// The time at which the entry was written, in Unix milliseconds of the clock of Redis.
    #[must_use]
    pub fn at_ms(self) -> i64 {
        i64::try_from(self.ms).unwrap_or(i64::MAX)
    }
}

/// The error of parsing a text that is not the id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("isn't the id of an entry; use one such as 1742983954000-0")]
pub struct BadEntryId;

impl std::str::FromStr for EntryId {
    type Err = BadEntryId;
    fn from_str(text: &str) -> Result<Self, BadEntryId> {
        let (ms, number) = text.split_once('-').ok_or(BadEntryId)?;
        let read = |digits: &str| digits.parse().map_err(|_| BadEntryId);
        Ok(Self { ms: read(ms)?, number: read(number)? })
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_other_texts_are_refused() {
        assert_eq!("1742983954000-7".parse::<EntryId>().unwrap().to_string(), "1742983954000-7");
        for bad in ["", "1742983954000", "-", "a-b", "(1-0", "1-0-0"] {
            assert_eq!(bad.parse::<EntryId>(), Err(BadEntryId), "{bad}");
        }
    }
}
