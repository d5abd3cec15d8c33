//! Why the body of a request can't be read, without its values.
//!
//! A client may have put a secret into the wrong field. serde quotes what it can't read, and what it quotes would get
//! into the logs of that client.

/// What serde says before a value of the wrong kind, which comes after the path of its field.
const BEFORE_VALUES: [&str; 3] = ["invalid type: ", "invalid value: ", "unknown variant "];
/// What serde says before the name of a field that it doesn't know. The path before it is that name.
const BEFORE_NAMES: &str = "unknown field `";
/// The longest unknown name that is repeated, in letters. A name helps whoever mistyped it, and no good secret is so
/// short or made of letters alone.
const NAME_MAX: usize = 20;
/// What serde says before that which is allowed.
const BEFORE_ALLOWED: &str = ", expected ";

/// The text of serde's `error` without the values and names that it quotes.
pub fn without_values(error: &str) -> String {
    let allowed = error.rfind(BEFORE_ALLOWED).map_or("", |at| &error[at..]);
    let kinds = BEFORE_VALUES.iter().filter_map(|kind| Some((error.find(kind)?, *kind)));
    let first = kinds.min_by_key(|(at, _)| *at);
    let field = error.find(BEFORE_NAMES);
    match (first, field) {
        (Some((at, kind)), field) if field.is_none_or(|field| at < field) => {
            let value = &error[at + kind.len()..];
            // Such as `string "…"`: its type is told, and its text isn't.
            let value_type = value.split(['"', '`', ',']).next().unwrap_or_default().trim_end();
            format!("{}{}{allowed}", &error[..at], format!("{kind}{value_type}").trim_end())
        }
        (_, Some(at)) => {
            let name = error[at + BEFORE_NAMES.len()..].split('`').next().unwrap_or_default();
            let is_shown = name.len() <= NAME_MAX && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
            let name = if is_shown { format!(" `{name}`") } else { String::new() };
            format!("unknown field{name}{allowed}")
        }
        (_, None) => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_is_not_repeated_and_what_is_allowed_is() {
        for (error, told) in [
            (
                r#"active: invalid type: string "hunter2, expected \"x", expected a boolean at line 1 column 9"#,
                "active: invalid type: string, expected a boolean at line 1 column 9",
            ),
            ("n: invalid value: integer `5`, expected u8", "n: invalid value: integer, expected u8"),
            ("secret: invalid type: sequence, expected a string", "secret: invalid type: sequence, expected a string"),
            ("format: unknown variant `hunter2`, expected `a` or `b`", "format: unknown variant, expected `a` or `b`"),
            ("hunter2: unknown field `hunter2`, expected one of `a`, `b`", "unknown field, expected one of `a`, `b`"),
            ("colour: unknown field `colour`, expected `a`", "unknown field `colour`, expected `a`"),
            ("invalid type: string \"hunter2\", expected struct Draft", "invalid type: string, expected struct Draft"),
            ("expected value at line 1 column 1", "expected value at line 1 column 1"),
            ("missing field `url`", "missing field `url`"),
        ] {
            assert_eq!(without_values(error), told);
        }
    }
}
