//! The tokens that open the admin server.

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::config::{self, Role, Token};

/// The tokens of the configuration.
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// The tokens of `settings`.
    pub fn new(settings: &config::Admin) -> Self {
        Self(settings.all_tokens())
    }

    /// Whether there is no token, so that nobody can use the page and the API.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The token with this text. The time that this takes says nothing about the tokens but their number.
    pub fn find(&self, text: &str) -> Option<&Token> {
        // The digests have equal lengths, so that the time of the comparison does not reveal the length of a token.
        let given = Sha256::digest(text.as_bytes());
        let is_it = |token: &Token| Sha256::digest(token.token.expose().as_bytes()).ct_eq(&given);
        let matches: Vec<(Choice, &Token)> = self.0.iter().map(|token| (is_it(token), token)).collect();
        matches.into_iter().find(|(is_it, _)| bool::from(*is_it)).map(|(_, token)| token)
    }

    /// The token with this name.
    pub fn named(&self, name: &str) -> Option<&Token> {
        self.0.iter().find(|token| token.name == name)
    }
}

/// Whether a role may make a request with this method. Every change is made by another method than these two.
pub fn may(role: Role, method: &axum::http::Method) -> bool {
    role == Role::Change || method == axum::http::Method::GET || method == axum::http::Method::HEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_token_is_found_by_its_whole_text_and_none_by_an_empty_one() {
        let tokens = r#"[{name="ci", token="0123456789abcdef", role="read"}]"#;
        let config = Config::with([("admin.token", "the admin's own token"), ("admin.tokens", tokens)]).unwrap();
        let tokens = Tokens::new(&config.admin);
        assert_eq!(tokens.find("0123456789abcdef").unwrap().name, "ci");
        assert_eq!(tokens.find("the admin's own token").unwrap().name, "admin");
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "admin"] {
            assert!(tokens.find(wrong).is_none(), "{wrong}");
        }
        assert!(Tokens::new(&Config::built_in().admin).find("").is_none(), "without a token nobody can sign in");
    }
}
