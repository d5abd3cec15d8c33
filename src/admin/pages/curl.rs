//! An attempt as a `curl` command, for people who want to send its request themselves.

use std::borrow::Cow;

use crate::store::log::Logged;

/// The command. The values of the owner's headers are secrets, so the mask stands for them.
pub fn command(url: &str, logged: &Logged<'_>, payload: &str) -> String {
    let mut command = format!("curl -X POST {}", shell(url));
    for (name, value) in logged.request_headers() {
        command += &format!(" \\\n  -H {}", shell(&format!("{name}: {value}")));
    }
    // The signature is over these bytes, so curl must neither strip line breaks nor read a file.
    command += &format!(" \\\n  --data-raw {}", shell(payload));
    command
}

/// A text as a POSIX shell takes it. Only a NUL can't be given to a command, and no URL, header or JSON has one.
fn shell(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| String::new(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["", "plain", "it's", "$(touch x) `id` \\ \"q\" !x", "line\nbreak", "''", "ü 漢", "-n", "a^b"] {
            let echo = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", shell(text))]).output();
            assert_eq!(String::from_utf8(echo.unwrap().stdout).unwrap(), text);
        }
    }
}
