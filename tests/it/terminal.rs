//! What the commands print: nothing from outside reaches the terminal as it came, and secrets stay off the command line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use optio_webhooks::event::EventType;
use optio_webhooks::secret::Secret;
use optio_webhooks::signature::SigningSecret;

use crate::harness::World;
use crate::harness::worker::PROGRAM;

/// A text that sets the title of a terminal, starts a new line, clears the screen and turns the text direction.
const HOSTILE: &str = "a\u{1b}]0;owned\u{7}\r\nforged line\u{9b}2J\u{202e}b\u{2028}c\u{7f}";

/// Fails if anything was printed that a terminal obeys, other than the end of a line.
fn assert_printable(printed: &[u8]) {
    let text = std::str::from_utf8(printed).unwrap();
    let obeyed = |c: char| {
        (c.is_control() && c != '\n')
            || ('\u{2028}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    assert!(!text.contains(obeyed), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("forged")), "{text:?}");
}

fn run(world: &World, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(world.environment()).stdin(Stdio::null());
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    assert_printable(&output.stdout);
    assert_printable(&output.stderr);
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_from_outside_are_escaped_in_all_that_commands_print() {
    let world = World::new().await;
    let mut webhook = world.unsaved("/hook", &[EventType::TaskCompleted]);
    // The API refuses such a description. An earlier version, or somebody else who writes to Redis, may have stored it.
    webhook.description = Some(HOSTILE.to_owned());
    webhook.active = false;
    webhook.disabled_reason = Some(HOSTILE.to_owned());
    world.store().put(&webhook).await.unwrap();
    let id = webhook.id.to_string();

    for arguments in [["webhooks", "list"].as_slice(), &["webhooks", "show", &id]] {
        let shown = run(&world, arguments).stdout;
        let shown = String::from_utf8(shown).unwrap();
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(shown.contains("a\\u001b]0;owned\\u0007\\r\\nforged line"), "{shown}");
    }
    let shown = run(&world, &["webhooks", "show", &id, "--json"]).stdout;
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["webhook"]["description"], HOSTILE);

    // Errors quote arguments, files and settings.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    std::fs::write(&file, "[kafka]\n\"bro\\u001b[31mkers\" = \"x\"\n").unwrap();
    for (arguments, code) in [
        (["webhooks", "show", HOSTILE].as_slice(), 2),
        (&[HOSTILE], 2),
        (
            &[
                "webhooks",
                "add",
                "--url",
                "https://example.com/",
                "--events",
                "task.completed",
                "--description",
                HOSTILE,
            ],
            2,
        ),
        (&["emit", "--file", HOSTILE], 1),
        (&["config", "check", "--config", file.to_str().unwrap()], 78),
        (&["config", "check", "--config", HOSTILE], 78),
    ] {
        let output = run(&world, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

/// A running `listen --body`, and its address.
struct Listener {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Listener {
    fn start(arguments: &[&str], variable: Option<&str>, input: impl FnOnce(ChildStdin)) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["listen", "--address", "127.0.0.1:0", "--body"]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(secret) = variable {
            command.env("OPTIO_WEBHOOKS_LISTEN_SECRET", secret);
        }
        let mut child = command.spawn().unwrap();
        input(child.stdin.take().unwrap());
        let mut first = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut first).unwrap();
        let address = first.strip_prefix("listening on http://").and_then(|rest| rest.split('/').next());
        let address = address.unwrap_or_else(|| panic!("{first}")).to_owned();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, address }
    }

    /// Sends a request, and returns the two lines about it.
    fn receive(&mut self, body: &str, signature: &str) -> [String; 2] {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST /hook HTTP/1.1\r\nHost: listener\r\nX-Optio-Signature: {signature}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut line = || {
            let line = self.lines.next().unwrap().unwrap();
            assert_printable(line.as_bytes());
            line
        };
        [line(), line()]
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn listen_takes_its_secret_from_standard_input_or_a_variable_and_prints_bodies_escaped() {
    let secret = "only-for-this-test-of-listen";
    let signature = SigningSecret::parse(Secret::from(secret)).unwrap().optio(HOSTILE.as_bytes()).unwrap();
    let from_stdin = |mut stdin: ChildStdin| writeln!(stdin, "{secret}").unwrap();
    for mut listener in [
        Listener::start(&["--secret-stdin"], None, from_stdin),
        Listener::start(&[], Some(secret), drop),
        // An argument has precedence over the variable.
        Listener::start(&["--secret-stdin"], Some("another"), from_stdin),
    ] {
        let arguments = std::fs::read(format!("/proc/{}/cmdline", listener.child.id())).unwrap();
        assert!(!String::from_utf8_lossy(&arguments).contains(secret));
        let [line, body] = listener.receive(HOSTILE, &signature);
        assert!(line.ends_with("signature ok  -> 200"), "{line}");
        assert_eq!(body, "a\\u001b]0;owned\\u0007\\r\\nforged line\\u009b2J\\u202eb\\u2028c\\u007f");
        let [line, _] = listener.receive("other", &signature);
        assert!(line.ends_with("SIGNATURE WRONG  -> 401"), "{line}");
    }

    let mut command = Command::new(PROGRAM);
    command.args(["listen", "--address", "127.0.0.1:0"]).env("OPTIO_WEBHOOKS_LISTEN_SECRET", "");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("OPTIO_WEBHOOKS_LISTEN_SECRET is empty"));
}
