//! The classification of Redis errors: the server is unavailable, the server refuses writes, or the command fails for
//! good.

use redis::{ErrorKind, RedisError};

use crate::secret::keyring::Unopened;
use crate::webhook::WebhookId;
use crate::webhook::stored::NoSealingKey;

/// An error of reading or changing a webhook.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Redis is unavailable or refuses the command.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// Another version of this program wrote the webhook. Nothing was changed.
    #[error(
        "webhook {id} can't be read by this version ({problem}); it can be removed, or changed by the version that wrote it"
    )]
    Unreadable {
        /// The id of the webhook.
        id: WebhookId,
        /// The part of the stored webhook that this version cannot read.
        problem: String,
    },
    /// The secret of the webhook can't be opened. Nothing was changed.
    #[error(
        "the secret of webhook {id} can't be opened: {reason}; give the webhook a new secret, or add the right key"
    )]
    Unopened {
        /// The id of the webhook.
        id: WebhookId,
        /// Why the secret can't be opened.
        reason: Unopened,
    },
    /// The secret of the webhook can't be stored. Nothing was changed.
    #[error("secret: {0}")]
    NoSealingKey(#[from] NoSealingKey),
}

/// Error codes that go away once the server is repaired, loaded or reachable.
const AWAY: [&str; 15] = [
    "LOADING",
    "TRYAGAIN",
    "CLUSTERDOWN",
    // The slot is, or is being, moved to another node. The search for the primary finds that one.
    "MOVED",
    "ASK",
    "MASTERDOWN",
    "READONLY",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "UNKILLABLE",
    "NOAUTH",
    "WRONGPASS",
    "NOGOODSLAVE",
];

/// Error codes of a server that answers reads but refuses writes.
const REFUSES_WRITES: [&str; 4] = ["READONLY", "OOM", "MISCONF", "NOREPLICAS"];

/// Whether Redis is unavailable, so that the same command may succeed later. Every other error would occur again, such
/// as a key of another type or a command that an ACL forbids.
#[must_use]
pub fn is_away(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::AuthenticationFailed | ErrorKind::ClusterConnectionNotFound => true,
        _ => has_code(error, &AWAY),
    }
}

/// The server's reason to refuse all writes, if that is what the error says. None for an error that concerns one
/// command or key only, such as an ACL rule or a key of another type.
#[must_use]
pub fn refuses_writes(error: &RedisError) -> Option<String> {
    has_code(error, &REFUSES_WRITES).then(|| server_message(error))
}

/// The code of the scripts' error for a change that was not made, because the audit log doesn't take its entry.
pub(super) const UNAUDITED: &str = "UNAUDITED";

/// Why a change was not made, if the audit log doesn't take its entry.
#[must_use]
pub fn unaudited(error: &RedisError) -> Option<String> {
    (error.code() == Some(UNAUDITED)).then(|| {
        let why = error.detail().unwrap_or_default();
        format!("nothing was changed, because Redis refuses the entry in the audit log: {why}")
    })
}

fn has_code(error: &RedisError, codes: &[&str]) -> bool {
    let is_own_code = error.code().is_some_and(|code| codes.contains(&code))
        || error.detail().is_some_and(|detail| code_in_script(detail).is_some_and(|code| codes.contains(&code)));
    // The error of a pipeline contains the errors of its commands.
    is_own_code
        || error
            .clone()
            .into_server_errors()
            .is_some_and(|errors| errors.iter().any(|(_, error)| codes.contains(&error.code())))
}

/// The code of the error that ended a script. Redis 6.2 puts it into the text of an `ERR`, later versions answer with it.
#[must_use]
pub fn code_in_script(detail: &str) -> Option<&str> {
    let (_, rest) = detail.split_once("Error running script")?;
    let (_, error) = rest.split_once(": -")?;
    error.split(' ').next()
}

/// The message of the server, if the server sent one, else the text of the error.
fn server_message(error: &RedisError) -> String {
    let first = error.clone().into_server_errors().and_then(|errors| errors.first().map(|(_, error)| error.clone()));
    match first {
        Some(error) => format!("{} {}", error.code(), error.details().unwrap_or_default()).trim_end().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(answer: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn only_a_refusal_of_all_writes_counts_as_refusing_writes() {
        for refusal in [
            "READONLY You can't write against a read only replica.",
            "OOM command not allowed",
            "MISCONF Redis is configured to save RDB snapshots",
            "NOREPLICAS Not enough good replicas to write.",
        ] {
            assert_eq!(refuses_writes(&error(refusal)).as_deref(), Some(refusal));
            assert!(is_away(&error(refusal)));
        }
        for refusal in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOPERM this user has no permissions to run the 'xadd' command",
            "ERR unknown command",
        ] {
            assert_eq!(refuses_writes(&error(refusal)), None);
            assert!(!is_away(&error(refusal)), "{refusal}");
        }
        let script = "ERR Error running script (call to f_0a1b): @user_script:3: ";
        assert!(is_away(&error(&format!("{script}-READONLY You can't write against a read only replica."))));
        assert!(!is_away(&error(&format!(
            "{script}-WRONGTYPE Operation against a key holding the wrong kind of value"
        ))));
        assert!(is_away(&error("LOADING Redis is loading the dataset in memory")));
        assert_eq!(refuses_writes(&error("LOADING Redis is loading the dataset in memory")), None);
    }
}
