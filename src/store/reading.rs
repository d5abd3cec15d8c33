//! The judgement whether the webhooks in Redis are complete or whether some were lost.
//!
//! An empty store looks the same whether nobody added a webhook or all webhooks were lost. Taking a lost store for an
//! empty one drops deliveries for good. Each reading is therefore compared with the last confirmed reading, and with
//! the store's own version and count: each change of a webhook increments the version by one and writes the number of
//! webhooks. An operator can declare that the stored webhooks are complete (`webhooks init`). A declaration that is
//! newer than the last confirmed reading overrides these checks, except for the count.

use std::collections::HashSet;

/// The version of the webhooks, as it stands in Redis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Version {
    /// The key does not exist.
    #[default]
    Absent,
    /// The version. Every change increments it.
    Number(u64),
    /// The value is not a version, or the key cannot be read. The text is the value or the error of Redis.
    Invalid(String),
}

/// The largest version. Scripts calculate in doubles, so this program never writes a larger one.
const VERSION_MAX: u64 = 1 << 53;
/// The number of characters of an invalid value that are shown.
const INVALID_SHOWN_MAX: usize = 40;

impl Version {
    /// Parses the value of the key. None means that the key does not exist.
    #[must_use]
    pub fn of(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Self::Absent };
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match number.filter(|number| *number <= VERSION_MAX) {
            Some(number) => Self::Number(number),
            None => Self::Invalid(format!(
                "{:?}",
                String::from_utf8_lossy(value).chars().take(INVALID_SHOWN_MAX).collect::<String>()
            )),
        }
    }
}

/// The metadata of the stored webhooks, without the webhooks themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreSummary {
    /// The version of the webhooks.
    pub version: Version,
    /// The number of webhooks that there should be, and the version at which it was written.
    pub count: Option<(u64, u64)>,
    /// The version of the last `webhooks init`.
    pub declared: Option<u64>,
    /// The number of webhooks that there are.
    pub found: u64,
}

/// The last reading that was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastConfirmed {
    /// The version of the webhooks.
    pub version: u64,
    /// The names of all entries, including inactive and unreadable webhooks.
    pub names: HashSet<String>,
}

/// The judgement of a reading that is not in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The webhooks are complete, at this version.
    Confirmed(u64),
    /// The store is empty, as if nothing was ever written: the installation is new, or everything was lost. Only
    /// commits of the consumer groups can show which.
    NeverWritten,
}

/// The reason why a reading cannot be used, as a sentence for operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unconfirmed(pub String);

/// What an operator can do about an unconfirmed reading. It continues a sentence.
pub const REMEDY: &str = "delivery resumes when the webhooks are back, or after `optio-webhooks webhooks init` declares \
     the stored ones complete";

/// Judges a reading: the metadata of the store, and the names of all its entries.
///
/// # Errors
/// [`Unconfirmed`] if webhooks may have been lost.
pub fn judge(
    known: Option<&LastConfirmed>,
    peek: &StoreSummary,
    names: &HashSet<String>,
) -> Result<Verdict, Unconfirmed> {
    let version = match &peek.version {
        Version::Number(version) => *version,
        Version::Invalid(value) => {
            return unconfirmed(format!(
                "the version of the webhooks is {value}, which isn't a number that this program writes"
            ));
        }
        Version::Absent => {
            return match known {
                None if names.is_empty() && peek.count.is_none() => Ok(Verdict::NeverWritten),
                None => unconfirmed(format!("the version of the webhooks is gone; {} webhooks are there", names.len())),
                Some(known) => unconfirmed(format!(
                    "the version of the webhooks is gone: it was {}, with {} webhooks; {} are there",
                    known.version,
                    known.names.len(),
                    names.len()
                )),
            };
        }
    };
    let declared = peek.declared.unwrap_or(0);
    if known.is_some_and(|known| declared > known.version && declared <= version) {
        return confirmed(version, peek, names);
    }
    if let Some(known) = known {
        if version < known.version {
            return unconfirmed(format!(
                "the version of the webhooks fell from {} to {version}; {} of {} webhooks are there",
                known.version,
                names.intersection(&known.names).count(),
                known.names.len()
            ));
        }
        // A change adds or removes at most one webhook.
        let vanished = known.names.difference(names).count() as u64;
        let appeared = names.difference(&known.names).count() as u64;
        let changes = version - known.version;
        if vanished > 0 && vanished + appeared > changes {
            return unconfirmed(format!(
                "{vanished} of {} webhooks are gone, but the number of changes since they were last read is {changes}",
                known.names.len()
            ));
        }
    }
    confirmed(version, peek, names)
}

fn confirmed(version: u64, peek: &StoreSummary, names: &HashSet<String>) -> Result<Verdict, Unconfirmed> {
    match peek.count {
        // An older version of this program changes webhooks without writing the count: then the versions differ.
        Some((count, at)) if at == version && count != names.len() as u64 => {
            unconfirmed(format!("{} webhooks are there, but there should be {count}", names.len()))
        }
        _ => Ok(Verdict::Confirmed(version)),
    }
}

fn unconfirmed<T>(problem: String) -> Result<T, Unconfirmed> {
    Err(Unconfirmed(format!("{problem}: nothing is sent; {REMEDY}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> HashSet<String> {
        (0..count).map(|number| number.to_string()).collect()
    }

    fn known(version: u64, count: usize) -> Option<LastConfirmed> {
        Some(LastConfirmed { version, names: names(count) })
    }

    fn peek(version: u64) -> StoreSummary {
        StoreSummary { version: Version::Number(version), ..StoreSummary::default() }
    }

    fn reason(known: Option<LastConfirmed>, peek: StoreSummary, count: usize) -> String {
        judge(known.as_ref(), &peek, &names(count)).unwrap_err().to_string()
    }

    #[test]
    fn ordinary_changes_are_confirmed() {
        let of = |known: Option<LastConfirmed>, peek, count| judge(known.as_ref(), &peek, &names(count));
        assert_eq!(of(None, peek(7), 3), Ok(Verdict::Confirmed(7)));
        assert_eq!(of(known(7, 3), peek(7), 3), Ok(Verdict::Confirmed(7)));
        assert_eq!(of(known(7, 3), peek(8), 4), Ok(Verdict::Confirmed(8)));
        assert_eq!(of(known(7, 3), peek(8), 2), Ok(Verdict::Confirmed(8)), "one webhook was removed");
        assert_eq!(of(known(7, 3), peek(10), 0), Ok(Verdict::Confirmed(10)), "all webhooks were removed one by one");
        assert_eq!(of(None, peek(10), 0), Ok(Verdict::Confirmed(10)));
    }

    #[test]
    fn a_store_that_lost_webhooks_is_not_confirmed() {
        let absent = || StoreSummary::default();
        assert!(reason(known(7, 3), absent(), 0).contains("is gone: it was 7, with 3 webhooks; 0 are there"));
        assert!(reason(known(7, 3), absent(), 3).contains("is gone"), "only the version is gone");
        assert!(reason(None, absent(), 3).contains("is gone"), "only the version is gone, for a worker that starts");
        assert!(reason(known(7, 3), peek(6), 3).contains("fell from 7 to 6"));
        assert!(
            reason(known(7, 3), peek(1), 1).contains("fell from 7 to 1; 1 of 3"),
            "a webhook was added to an empty store"
        );
        assert!(
            reason(known(7, 3), peek(7), 2).contains("1 of 3 webhooks are gone"),
            "removed without a change of the version"
        );
        assert!(
            reason(known(7, 3), peek(8), 1)
                .contains("2 of 3 webhooks are gone, but the number of changes since they were last read is 1")
        );
        let other = HashSet::from(["other".to_owned()]);
        assert!(
            judge(known(7, 1).as_ref(), &peek(8), &other).is_err(),
            "the change added a webhook, so it removed none"
        );
        let counted = |count, at| StoreSummary { count: Some((count, at)), ..peek(7) };
        assert!(reason(None, counted(3, 7), 0).contains("0 webhooks are there, but there should be 3"));
        assert!(reason(None, StoreSummary { count: Some((3, 7)), ..absent() }, 0).contains("is gone"));
        assert_eq!(
            judge(None, &counted(3, 6), &names(0)),
            Ok(Verdict::Confirmed(7)),
            "an older program changed a webhook since"
        );
    }

    #[test]
    fn an_empty_store_is_new_only_to_a_worker_that_starts() {
        assert_eq!(judge(None, &StoreSummary::default(), &names(0)), Ok(Verdict::NeverWritten));
        assert!(judge(known(1, 0).as_ref(), &StoreSummary::default(), &names(0)).is_err());
    }

    #[test]
    fn only_a_declaration_newer_than_the_confirmed_version_overrides_it() {
        let declared = |declared, version| StoreSummary { declared: Some(declared), ..peek(version) };
        assert_eq!(judge(known(7, 3).as_ref(), &declared(9, 9), &names(0)), Ok(Verdict::Confirmed(9)));
        assert_eq!(judge(known(7, 3).as_ref(), &declared(9, 10), &names(1)), Ok(Verdict::Confirmed(10)));
        assert!(judge(known(7, 3).as_ref(), &declared(5, 6), &names(3)).is_err(), "an older backup");
        assert!(
            judge(known(7, 3).as_ref(), &declared(9, 7), &names(0)).is_err(),
            "the declaration is newer than the version"
        );
    }

    #[test]
    fn a_version_that_is_not_a_number_is_invalid() {
        assert_eq!(Version::of(Some(b"12")), Version::Number(12));
        assert_eq!(Version::of(None), Version::Absent);
        for invalid in [&b"-1"[..], b"", b"x", b"\xff", b"1e9", b"18446744073709551615"] {
            assert!(matches!(Version::of(Some(invalid)), Version::Invalid(_)), "{invalid:?}");
        }
        assert!(
            reason(None, StoreSummary { version: Version::of(Some(b"x")), ..StoreSummary::default() }, 3)
                .contains("isn't a number")
        );
    }
}
