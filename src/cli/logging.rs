//! Log lines on standard error. Every value is escaped, because many come from outside.

use std::fmt::Write as _;
use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::output;
use crate::printable::escaped;

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts to log. `default` is the filter if `RUST_LOG` has none.
pub fn start(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    dispatch(format, filter, output::stderr_is_terminal(), io::stderr).init();
    log_panics();
}

fn dispatch<W>(format: LogFormat, filter: EnvFilter, is_terminal: bool, writer: W) -> tracing::Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    match format {
        // The formatter colours times and levels itself, so fields are escaped before they reach the line. What it would
        // print of a value by itself (`%value`) isn't escaped.
        LogFormat::Text => {
            let fields = debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{}", escaped(&format!("{value:?}"))),
                // The bridge from the `log` crate adds these. They repeat what the line already shows.
                name if name.starts_with("log.") => Ok(()),
                name => write!(writer, "{}={}", name.trim_start_matches("r#"), escaped(&format!("{value:?}"))),
            });
            logging.fmt_fields(fields.delimited(" ")).with_ansi(is_terminal).with_writer(writer).into()
        }
        // JSON has no colours, so the whole line is escaped. JSON itself escapes only C0.
        LogFormat::Json => logging.json().with_ansi(false).with_writer(Escaping(writer)).into(),
    }
}

/// Prints panics through the same escapes: their messages may quote values.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        let mut text = format!("thread {:?} {panic}", thread.name().unwrap_or("without a name"));
        match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => {
                write!(text, "\n{backtrace}").expect("a String takes every text");
            }
            _ => text.push_str("\nRUST_BACKTRACE=1 adds a backtrace"),
        }
        output::complain(&text);
    }));
}

/// Escapes whole lines. The formatter writes each line at once.
struct Escaping<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Escaping<M> {
    type Writer = Escaping<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaping(self.0.make_writer())
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        self.0.write_all(format!("{}{end}", escaped(text)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::printable::is_control;

    const HOSTILE: &str = "a\u{1b}]0;b\u{7}\nc\u{9b}2J\u{202e}d\u{2028}e";

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of a hostile text in a message, in each kind of field, and in a span.
    fn logged(format: LogFormat) -> String {
        let lines = Lines::default();
        let writer = {
            let lines = lines.clone();
            move || lines.clone()
        };
        tracing::dispatcher::with_default(&dispatch(format, EnvFilter::new("trace"), false, writer), || {
            let error = io::Error::other(HOSTILE);
            let span = tracing::info_span!("span", text = %HOSTILE);
            let _entered = span.enter();
            tracing::info!(display = %HOSTILE, text = HOSTILE, debug = ?HOSTILE, error = &error as &dyn std::error::Error, "message {HOSTILE}");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_log_line_has_no_control_characters() {
        let text = logged(LogFormat::Text);
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(is_control), "{line:?}");
        assert!(line.contains("message a\\u001b]0;b") && line.contains(" display=a\\u001b]0;b"), "{line}");
    }

    #[test]
    fn a_json_log_line_has_no_control_characters_and_means_the_same() {
        let text = logged(LogFormat::Json);
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(is_control), "{line:?}");
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(parsed["fields"]["display"], HOSTILE);
        assert_eq!(parsed["span"]["text"], HOSTILE);
    }
}
