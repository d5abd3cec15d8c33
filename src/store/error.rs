//! What an error of Redis means: for later, for the operator, or for good.

use redis::{ErrorKind, RedisError};

use crate::webhook::WebhookId;

/// A webhook couldn't be read or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Redis is away, or refuses.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// Another version of this program wrote it; nothing was changed.
    #[error(
        "webhook {id} can't be read by this version ({problem}); it can be removed, or changed by the version that wrote it"
    )]
    Unreadable {
        /// Its identity.
        id: WebhookId,
        /// What can't be read.
        problem: String,
    },
}

/// Codes of answers that will be others once the server is mended, loaded or reached.
const AWAY: [&str; 13] = [
    "LOADING",
    "TRYAGAIN",
    "CLUSTERDOWN",
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

/// Codes of answers of a server that answers reads and takes no write.
const REFUSES_WRITES: [&str; 4] = ["READONLY", "OOM", "MISCONF", "NOREPLICAS"];

/// Whether Redis didn't take the question, and may take it later. Everything else would fail again: a key of another
/// type, a command that may not be used.
#[must_use]
pub fn is_away(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::AuthenticationFailed | ErrorKind::ClusterConnectionNotFound => true,
        _ => has_code(error, &AWAY),
    }
}

/// Why the server takes no write, if that is what the error says. One that refuses this one command by an ACL, or
/// because of the key's type, isn't meant.
#[must_use]
pub fn refuses_writes(error: &RedisError) -> Option<String> {
    has_code(error, &REFUSES_WRITES).then(|| plain(error))
}

fn has_code(error: &RedisError, codes: &[&str]) -> bool {
    let of_one = error.code().is_some_and(|code| codes.contains(&code));
    // Several commands at once: the errors of each.
    of_one
        || error
            .clone()
            .into_server_errors()
            .is_some_and(|errors| errors.iter().any(|(_, error)| codes.contains(&error.code())))
}

/// The server's own words where there are any.
fn plain(error: &RedisError) -> String {
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
    fn a_server_that_takes_no_write_is_told_from_a_key_or_a_command_that_it_refuses() {
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
        assert!(is_away(&error("LOADING Redis is loading the dataset in memory")));
        assert_eq!(refuses_writes(&error("LOADING Redis is loading the dataset in memory")), None);
    }
}
