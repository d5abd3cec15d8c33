//! Secrets that commands read from where other users of the machine can't see them.

use std::io::BufRead as _;

use zeroize::Zeroizing;

use super::Failure;
use crate::secret::Secret;

/// The longest first line of standard input that is taken as a secret, in bytes.
const SECRET_MAX: u64 = 4_096;

/// Reads a secret from the first line of standard input.
///
/// # Errors
/// The line is empty or too long, or it can't be read.
pub fn from_stdin() -> Result<Secret, Failure> {
    first_line(std::io::stdin().lock())
}

/// Reads a secret from an environment variable, if it is set.
///
/// # Errors
/// The variable is empty. Taking that for no secret would switch a check off without a word.
pub fn from_variable(name: &str) -> Result<Option<Secret>, Failure> {
    match std::env::var(name) {
        Ok(text) if text.is_empty() => Err(Failure::Usage(format!("{name} is empty; unset it, or give it the secret"))),
        Ok(text) => Ok(Some(text.into())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::Usage(format!("{name} is not UTF-8"))),
    }
}

fn first_line(input: impl std::io::BufRead) -> Result<Secret, Failure> {
    let bad = |problem: &str| Failure::Usage(format!("--secret-stdin: {problem}"));
    let mut line = Zeroizing::new(String::new());
    // The capacity is there from the start, because growing would leave a copy behind that isn't zeroed.
    line.reserve(SECRET_MAX as usize + 2);
    input
        .take(SECRET_MAX + 2)
        .read_line(&mut line)
        .map_err(|error| bad(&format!("standard input can't be read: {error}")))?;
    let secret = line.trim_end_matches(['\r', '\n']);
    match secret.len() as u64 {
        0 => Err(bad("the first line of standard input is empty; it must be the secret")),
        length if length > SECRET_MAX => Err(bad(&format!("the first line is longer than {SECRET_MAX} bytes"))),
        _ => Ok(secret.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_secret() {
        for input in ["hunter2\n", "hunter2\r\nmore", "hunter2"] {
            assert_eq!(first_line(input.as_bytes()).unwrap().expose(), "hunter2");
        }
        assert_eq!(first_line("x".repeat(4_096).as_bytes()).unwrap().expose().len(), 4_096);
        for (input, word) in [(String::new(), "empty"), ("\nlater".to_owned(), "empty"), ("x".repeat(4_097), "4096")] {
            let problem = first_line(input.as_bytes()).unwrap_err().to_string();
            assert!(problem.contains(word), "{problem}");
        }
    }
}
