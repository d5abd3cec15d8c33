//! The sessions of people who signed in to the settings page.
//!
//! A session is a cookie that only a holder of the session key can make: the time at which it ends, an id, the name of
//! a token, and an HMAC of these and of the token itself. The key is random and lives in Redis, where it is sealed. So
//! every admin server accepts the session, nobody who reads Redis can make one, and nobody can guess the token from a
//! cookie. Without the key all sessions end. Without its token, or with another text of it, a session ends too. Forms
//! carry an HMAC of the cookie, which a page of another origin can't know.

mod cookie;
mod key;
mod revoked;
mod stored_key;

use redis::RedisResult;
use uuid::Uuid;

use super::tokens::Tokens;
use crate::clock::now_ms;
use crate::config::{self, Role, Token};
use crate::secret::keyring::Keyring;
use crate::store::Keys;
use crate::store::connection::Connection;
pub use cookie::{cookie, cookies, is_secure, removal};
use key::{SessionKey, SharedKey};
use revoked::Revoked;
pub use stored_key::Resealed;
use stored_key::StoredKey;

/// The path of the page where people sign in.
pub const SIGN_IN: &str = "/sign-in";

/// Makes, checks and ends sessions.
pub struct Sessions {
    key: SharedKey,
    revoked: Revoked,
    session_max_s: i64,
}

/// A person who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The id of the session.
    pub id: Uuid,
    /// The end of the session, in Unix seconds.
    pub until_s: i64,
    /// The name of the token that was entered.
    pub name: String,
    /// What that token may do.
    pub role: Role,
    /// The token that each form of this session must carry.
    pub csrf: String,
}

impl Sessions {
    /// Sessions as long as `admin.session_max`. Their key is sealed with `keyring`.
    pub fn new(connection: &Connection, keys: &Keys, keyring: Keyring, settings: &config::Admin) -> Self {
        Self {
            key: SharedKey::new(connection.clone(), keys, keyring),
            revoked: Revoked::new(connection.clone(), keys.clone()),
            session_max_s: settings.session_max.as_secs() as i64,
        }
    }

    /// The cookie of a new session. Call it only for a person who entered `token`.
    ///
    /// # Errors
    /// Errors of Redis.
    pub async fn sign_in(&self, token: &Token) -> RedisResult<String> {
        let key = self.key.create().await?;
        Ok(make(&key, token, now_s() + self.session_max_s, Uuid::new_v4()))
    }

    /// The session of a cookie; None if it has ended. The answer is at most a second old.
    ///
    /// # Errors
    /// Errors of Redis. Nobody knows then whether the session has ended.
    pub async fn find(&self, tokens: &Tokens, cookie: &str) -> RedisResult<Option<Session>> {
        let Some(key) = self.key.current().await? else { return Ok(None) };
        // A cookie that isn't ours costs no call of Redis.
        let Some(session) = read(&key, tokens, cookie, now_s()) else { return Ok(None) };
        let is_revoked = self.revoked.contains(session.id).await?;
        Ok(Some(session).filter(|_| !is_revoked))
    }

    /// Ends a session on every admin server, within a second.
    ///
    /// # Errors
    /// Errors of Redis. The session may still be valid.
    pub async fn sign_out(&self, session: &Session) -> RedisResult<()> {
        self.revoked.add(session.id, session.until_s - now_s()).await
    }
}

impl Session {
    /// Whether `csrf` is the token of this session's forms, compared in constant time.
    pub fn accepts(&self, csrf: &str) -> bool {
        use subtle::ConstantTimeEq as _;
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }

    /// Whether this person may change anything.
    pub fn may_change(&self) -> bool {
        self.role == Role::Change
    }
}

/// Ends every session of every person, within a second.
///
/// # Errors
/// Errors of Redis. The sessions may still be valid.
pub async fn revoke_all(connection: &Connection, keys: &Keys) -> RedisResult<()> {
    use redis::AsyncCommands as _;
    connection.clone().del(keys.session_key()).await
}

/// Seals the key of sessions with the first of `keyring` (`secrets rotate`). Sessions go on.
///
/// # Errors
/// Errors of Redis.
pub async fn reseal(connection: &Connection, keys: &Keys, keyring: Keyring) -> RedisResult<Resealed> {
    StoredKey::new(connection.clone(), keys, keyring).reseal().await
}

fn make(key: &SessionKey, token: &Token, until_s: i64, id: Uuid) -> String {
    let claims = format!("{until_s}.{}.{}", id.simple(), token.name);
    format!("{claims}.{}", key.mac("session", &[&claims, token.token.expose()]))
}

fn read(key: &SessionKey, tokens: &Tokens, cookie: &str, now_s: i64) -> Option<Session> {
    use subtle::ConstantTimeEq as _;
    let (claims, mac) = cookie.rsplit_once('.')?;
    let [until_s, id, name] = claims.splitn(3, '.').collect::<Vec<_>>().try_into().ok()?;
    let token = tokens.named(name)?;
    let expected = key.mac("session", &[claims, token.token.expose()]);
    if !bool::from(expected.as_bytes().ct_eq(mac.as_bytes())) {
        return None;
    }
    let (until_s, id) = (until_s.parse().ok()?, id.parse().ok()?);
    (now_s < until_s).then(|| Session {
        id,
        until_s,
        name: token.name.clone(),
        role: token.role,
        csrf: key.mac("csrf", &[cookie]),
    })
}

/// The current time in Unix seconds.
pub fn now_s() -> i64 {
    now_ms() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn tokens(token: &str) -> Tokens {
        let named = r#"[{name="ci", token="0123456789abcdef", role="read"}]"#;
        Tokens::new(&Config::with([("admin.token", token), ("admin.tokens", named)]).unwrap().admin)
    }

    const TOKEN: &str = "the admin's own token";

    #[test]
    fn a_session_ends_in_time_and_needs_the_key_and_the_token_that_made_it() {
        let (key, own) = (SessionKey::random(), tokens(TOKEN));
        let cookie = make(&key, own.named("admin").unwrap(), 1_000, Uuid::from_u128(7));
        let session = read(&key, &own, &cookie, 999).unwrap();
        assert_eq!((session.id, session.role, session.name.as_str()), (Uuid::from_u128(7), Role::Change, "admin"));
        assert_eq!(read(&key, &own, &cookie, 1_000), None, "it has ended");
        assert_eq!(read(&SessionKey::random(), &own, &cookie, 0), None, "another key");
        assert_eq!(read(&key, &tokens("the token was changed"), &cookie, 0), None);
        for (part, other) in [("1000.", "9999."), (".admin.", ".ci."), ("0007.", "0008.")] {
            let forged = cookie.replacen(part, other, 1);
            assert_ne!(forged, cookie);
            assert_eq!(read(&key, &own, &forged, 0), None, "{part}");
        }
        for nonsense in ["", ".", "...", "1000.x.admin.00"] {
            assert_eq!(read(&key, &own, nonsense, 0), None, "{nonsense}");
        }
    }

    #[test]
    fn a_form_is_taken_only_from_a_page_of_the_same_session() {
        let (key, tokens) = (SessionKey::random(), tokens(TOKEN));
        let session = |id| {
            let cookie = make(&key, tokens.named("ci").unwrap(), 1_000, Uuid::from_u128(id));
            read(&key, &tokens, &cookie, 0).unwrap()
        };
        let (one, other) = (session(1), session(2));
        assert!(one.accepts(&one.csrf.clone()));
        assert!(!one.accepts(&other.csrf) && !one.accepts(""));
        assert!(!one.may_change());
    }
}
