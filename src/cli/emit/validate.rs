//! `emit --validate`: says what a worker would make of messages, and writes nothing.

use std::path::Path;

use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::read_input;
use crate::cli::{Failure, say};
use crate::config::Config;
use crate::event::validation::{Problem, Verdict, validate};
use crate::event::{Limits, Nothing};

/// Prints a line for each message in the file, and one for each problem.
///
/// # Errors
/// The file can't be read, or a message in it isn't valid.
pub(super) fn run(path: &Path, config: &Config) -> Result<(), Failure> {
    let text = read_input(path)?;
    let (mut checked, mut invalid) = (0_usize, 0_usize);
    let mut messages = Deserializer::from_str(&text).into_iter::<&RawValue>();
    loop {
        let number = checked + 1;
        // What follows a message that isn't JSON can't be told apart from it, so the check ends there.
        let verdict = match messages.next() {
            None => break,
            Some(Ok(message)) => validate(message.get().as_bytes(), Limits::new(config)),
            Some(Err(error)) => Verdict::Refused(format!("is not JSON: {error}; the rest is not checked"), Vec::new()),
        };
        let ends = matches!(&verdict, Verdict::Refused(why, _) if why.ends_with("the rest is not checked"));
        checked += 1;
        invalid += usize::from(!verdict.is_valid());
        show(number, &verdict);
        if ends {
            break;
        }
    }
    if checked == 0 {
        return Err(Failure::Usage(format!("{} has no messages", path.display())));
    }
    if invalid > 0 {
        return Err(anyhow::anyhow!("{invalid} of {checked} messages are not valid; nothing was written").into());
    }
    say(&format!("all {checked} messages are valid; nothing was written"));
    Ok(())
}

fn show(number: usize, verdict: &Verdict) {
    let (line, problems): (String, &[Problem]) = match verdict {
        Verdict::Event(event) => (format!("valid, {}", event.as_str()), &[]),
        Verdict::Nothing(Nothing::OtherState) => {
            ("valid, but its state is no event, so nothing is sent".to_owned(), &[])
        }
        Verdict::Nothing(Nothing::Tombstone) => ("valid, a tombstone: nothing is sent".to_owned(), &[]),
        Verdict::Incomplete(event, problems) => (format!("{}, but not all of it arrives", event.as_str()), problems),
        Verdict::Refused(why, problems) => (format!("would be dead-lettered: {why}"), problems),
    };
    say(&format!("message {number}: {line}"));
    for problem in problems {
        say(&format!("  {} {}", problem.pointer, problem.problem));
    }
}
