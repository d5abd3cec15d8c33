//! Whether what stands in Redis is what people put there, or what a loss left of it.
//!
//! "No webhooks" and "nobody knows any more" look the same in an empty store, and to take one for the other drops
//! deliveries for good. So each reading is compared with what was confirmed before, and with what the store says of
//! itself: a version that each change raises by one, and the number of webhooks after the last change. An operator can
//! declare that what stands there is right (`webhooks init`); a declaration newer than what was confirmed outweighs all.

use std::collections::HashSet;

/// The store's version, as it is written there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Version {
    /// There is none.
    #[default]
    Absent,
    /// Raised by every change.
    Number(u64),
    /// Not a version: what stands there, or what Redis says of it.
    Odd(String),
}

/// Redis counts in 64 bits, scripts in doubles: a version beyond this wasn't written by this program.
const VERSION_MAX: u64 = 1 << 53;
/// Characters of an odd value that are shown.
const SHOWN_MAX: usize = 40;

impl Version {
    /// Reads what stands there.
    #[must_use]
    pub fn of(value: Option<&[u8]>) -> Self {
        let Some(value) = value else { return Self::Absent };
        let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match number.filter(|number| *number <= VERSION_MAX) {
            Some(number) => Self::Number(number),
            None => {
                Self::Odd(format!("{:?}", String::from_utf8_lossy(value).chars().take(SHOWN_MAX).collect::<String>()))
            }
        }
    }
}

/// What the store says of itself, without the webhooks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peek {
    /// Its version.
    pub version: Version,
    /// How many webhooks there should be, and at which version that was written.
    pub count: Option<(u64, u64)>,
    /// The version of the last declaration.
    pub declared: Option<u64>,
    /// How many there are.
    pub found: u64,
}

/// What was confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The version.
    pub version: u64,
    /// The names of all webhooks: active, inactive, unreadable.
    pub names: HashSet<String>,
}

/// A reading that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// These are the webhooks, at that version.
    Confirmed(u64),
    /// Nothing was ever written here: a fresh installation, or all of it is gone. Only what was delivered before can tell.
    Blank,
}

/// Why a reading can't be used, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unconfirmed(pub String);

/// How to end it.
pub const REMEDY: &str =
    "it goes on when they are back, or once `optio-webhooks webhooks init` says that what stands there is right";

/// Judges a reading: what the store says of itself, and the names of the webhooks in it.
///
/// # Errors
/// [`Unconfirmed`] where webhooks may be lost.
pub fn judge(known: Option<&Known>, peek: &Peek, names: &HashSet<String>) -> Result<Verdict, Unconfirmed> {
    let version = match &peek.version {
        Version::Number(version) => *version,
        Version::Odd(value) => {
            return unconfirmed(format!(
                "the version of the webhooks is {value}, which isn't a number that this program writes"
            ));
        }
        Version::Absent => {
            return match known {
                None if names.is_empty() && peek.count.is_none() => Ok(Verdict::Blank),
                None => unconfirmed(format!("the version of the webhooks is gone, {} of them are there", names.len())),
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
        // One change adds or takes away one webhook at most.
        let vanished = known.names.difference(names).count() as u64;
        let appeared = names.difference(&known.names).count() as u64;
        let changes = version - known.version;
        if vanished > 0 && vanished + appeared > changes {
            return unconfirmed(format!(
                "{vanished} of {} webhooks are gone, and there were {changes} changes since they were seen",
                known.names.len()
            ));
        }
    }
    confirmed(version, peek, names)
}

fn confirmed(version: u64, peek: &Peek, names: &HashSet<String>) -> Result<Verdict, Unconfirmed> {
    match peek.count {
        // Written by the last change; an older version of this program changes webhooks without it.
        Some((count, at)) if at == version && count != names.len() as u64 => {
            unconfirmed(format!("{} webhooks are there, and there should be {count}", names.len()))
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

    fn known(version: u64, count: usize) -> Option<Known> {
        Some(Known { version, names: names(count) })
    }

    fn peek(version: u64) -> Peek {
        Peek { version: Version::Number(version), ..Peek::default() }
    }

    fn reason(known: Option<Known>, peek: Peek, count: usize) -> String {
        judge(known.as_ref(), &peek, &names(count)).unwrap_err().to_string()
    }

    #[test]
    fn ordinary_changes_are_confirmed() {
        let of = |known: Option<Known>, peek, count| judge(known.as_ref(), &peek, &names(count));
        assert_eq!(of(None, peek(7), 3), Ok(Verdict::Confirmed(7)));
        assert_eq!(of(known(7, 3), peek(7), 3), Ok(Verdict::Confirmed(7)));
        assert_eq!(of(known(7, 3), peek(8), 4), Ok(Verdict::Confirmed(8)));
        assert_eq!(of(known(7, 3), peek(8), 2), Ok(Verdict::Confirmed(8)), "one was removed");
        assert_eq!(of(known(7, 3), peek(10), 0), Ok(Verdict::Confirmed(10)), "all were, one by one");
        assert_eq!(of(None, peek(10), 0), Ok(Verdict::Confirmed(10)));
    }

    #[test]
    fn a_store_that_lost_webhooks_is_not_confirmed() {
        let absent = || Peek::default();
        assert!(reason(known(7, 3), absent(), 0).contains("is gone: it was 7, with 3 webhooks; 0 are there"));
        assert!(reason(known(7, 3), absent(), 3).contains("is gone"), "the version alone");
        assert!(reason(None, absent(), 3).contains("is gone"), "the version alone, for a fresh worker");
        assert!(reason(known(7, 3), peek(6), 3).contains("fell from 7 to 6"));
        assert!(
            reason(known(7, 3), peek(1), 1).contains("fell from 7 to 1; 1 of 3"),
            "one was added to an empty store"
        );
        assert!(reason(known(7, 3), peek(7), 2).contains("1 of 3 webhooks are gone"), "by hand");
        assert!(reason(known(7, 3), peek(8), 1).contains("2 of 3 webhooks are gone, and there were 1 changes"));
        let other = HashSet::from(["other".to_owned()]);
        assert!(judge(known(7, 1).as_ref(), &peek(8), &other).is_err(), "the change added one, so it took none away");
        let counted = |count, at| Peek { count: Some((count, at)), ..peek(7) };
        assert!(reason(None, counted(3, 7), 0).contains("0 webhooks are there, and there should be 3"));
        assert!(reason(None, Peek { count: Some((3, 7)), ..absent() }, 0).contains("is gone"));
        assert_eq!(
            judge(None, &counted(3, 6), &names(0)),
            Ok(Verdict::Confirmed(7)),
            "an older program changed one since"
        );
    }

    #[test]
    fn a_store_that_was_never_written_to_is_blank_to_a_fresh_worker_only() {
        assert_eq!(judge(None, &Peek::default(), &names(0)), Ok(Verdict::Blank));
        assert!(judge(known(1, 0).as_ref(), &Peek::default(), &names(0)).is_err());
    }

    #[test]
    fn a_declaration_newer_than_what_was_confirmed_outweighs_it_and_an_older_one_does_not() {
        let declared = |declared, version| Peek { declared: Some(declared), ..peek(version) };
        assert_eq!(judge(known(7, 3).as_ref(), &declared(9, 9), &names(0)), Ok(Verdict::Confirmed(9)));
        assert_eq!(judge(known(7, 3).as_ref(), &declared(9, 10), &names(1)), Ok(Verdict::Confirmed(10)));
        assert!(judge(known(7, 3).as_ref(), &declared(5, 6), &names(3)).is_err(), "a backup from before");
        assert!(judge(known(7, 3).as_ref(), &declared(9, 7), &names(0)).is_err(), "declared beyond the version");
    }

    #[test]
    fn a_version_that_is_no_number_is_odd() {
        assert_eq!(Version::of(Some(b"12")), Version::Number(12));
        assert_eq!(Version::of(None), Version::Absent);
        for odd in [&b"-1"[..], b"", b"x", b"\xff", b"1e9", b"18446744073709551615"] {
            assert!(matches!(Version::of(Some(odd)), Version::Odd(_)), "{odd:?}");
        }
        assert!(
            reason(None, Peek { version: Version::of(Some(b"x")), ..Peek::default() }, 3).contains("isn't a number")
        );
    }
}
