//! The only way to the terminal: all commands print through these functions, which escape what comes from outside.
//!
//! A text for one line has its line breaks escaped too, so that no value can pass for a line of the program. A test
//! (`tests/it/layout.rs`) finds any other way to print.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU8, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::printable::escaped;

/// The most bytes that are read of an answer to a question.
const ANSWER_MAX: u64 = 1_024;

/// Prints a line to standard output.
pub fn say(line: &str) {
    to_stdout(&escaped(line));
}

/// Prints a text of the program's own that has several lines, such as the configuration.
pub fn say_lines(text: &str) {
    to_stdout(&escaped_lines(text, "\n"));
}

/// Prints a text that is made from this program alone, as it is.
pub fn say_script(text: &str) {
    if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
        note_failure(&error);
    }
}

/// Prints indented JSON to standard output. Line breaks in JSON stand only between values.
pub fn say_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    say_lines(&serde_json::to_string_pretty(value).map_err(anyhow::Error::new)?);
    Ok(())
}

/// Prints a line to standard error, such as the progress of a command.
pub fn note(line: &str) {
    to_stderr(&escaped(line));
}

/// Prints a warning or an error to standard error. Its second line and those after it are indented, so that a line break
/// in a quoted value can't forge a line of the program.
pub fn complain(problem: &str) {
    to_stderr(&format!("optio-webhooks: {}", escaped_lines(problem, "\n  ")));
}

/// Prints a warning to standard error.
pub fn warn(warning: &str) {
    complain(&format!("warning: {warning}"));
}

/// Prints what clap says about wrong arguments, which it quotes.
pub fn usage(sentences: &str) {
    to_stderr(&escaped_lines(sentences.trim_end(), "\n"));
}

/// Prints a question to standard error, and returns the answer, without the spaces around it.
pub fn ask(question: &str) -> std::io::Result<String> {
    let mut stderr = std::io::stderr();
    // Nobody reads standard error if this fails. The answer is still asked for.
    let _ = write!(stderr, "{} ", escaped(question)).and_then(|()| stderr.flush());
    let mut answer = String::new();
    std::io::Read::take(std::io::stdin().lock(), ANSWER_MAX).read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}

/// Whether standard error is a terminal.
pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether standard output and standard input are a terminal.
pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// A progress bar on standard error, where that is a terminal.
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// A bar for `total` steps. `template` is in indicatif's form.
    pub fn new(total: u64, template: &str) -> Self {
        let style = ProgressStyle::with_template(template)
            .expect("templates are constants, and each is used in a test")
            .progress_chars("=> ");
        Self(stderr_is_terminal().then(|| ProgressBar::new(total).with_style(style)))
    }

    /// Whether the bar is shown.
    pub fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    /// Shows that `done` of `total` steps are done, and a message.
    pub fn show(&self, done: u64, total: u64, message: &str) {
        if let Some(bar) = &self.0 {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(escaped(message).into_owned());
        }
    }

    /// Starts to measure the time again.
    pub fn reset(&self) {
        if let Some(bar) = &self.0 {
            bar.reset();
        }
    }

    /// Removes the bar.
    pub fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// The text with its lines joined by `line_break`, and all other control characters escaped.
fn escaped_lines(text: &str, line_break: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join(line_break)
}

/// Set when standard output can't be written any more: [`GONE`] or [`BROKEN`].
static STDOUT: AtomicU8 = AtomicU8::new(0);
/// The reader has gone away (`| head`), which is no error.
const GONE: u8 = 1;
/// The output is lost, for example because a disk is full.
const BROKEN: u8 = 2;

/// After a failure nothing more is printed, but a command finishes what it does: half of its changes would be worse than
/// changes that nobody reads about.
fn to_stdout(text: &str) {
    if STDOUT.load(Ordering::Relaxed) == 0
        && let Err(error) = writeln!(std::io::stdout(), "{text}")
    {
        note_failure(&error);
    }
}

fn note_failure(error: &std::io::Error) {
    let is_gone = error.kind() == std::io::ErrorKind::BrokenPipe;
    STDOUT.store(if is_gone { GONE } else { BROKEN }, Ordering::Relaxed);
}

/// Whether standard output can't be written any more, so that a command that only prints may end.
pub fn is_closed() -> bool {
    STDOUT.load(Ordering::Relaxed) != 0
}

/// If standard error is closed, there is nowhere to report that.
fn to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Ends the process without the exit handlers of its C libraries. `webhooks add` once ended with "double free or
/// corruption" after its work was done. The cause was not found; threads of librdkafka that still run while an exit
/// handler frees memory would explain it, and without the handlers that can't happen.
pub fn leave(code: i32) -> ! {
    use std::io::Write as _;

    if let Err(error) = std::io::stdout().flush() {
        note_failure(&error);
    }
    if STDOUT.load(Ordering::Relaxed) == BROKEN {
        complain("the output is incomplete, because standard output can't be written");
        signal_hook::low_level::exit(if code == 0 { 1 } else { code });
    }
    signal_hook::low_level::exit(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_after_the_first_are_indented_and_otherwise_escaped() {
        assert_eq!(escaped_lines("a\u{1b}\nb\u{2028}c", "\n  "), "a\\u001b\n  b\\u2028c");
    }
}
