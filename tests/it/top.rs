//! `top`: the live view in a real pseudo-terminal, and its text.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use optio_webhooks::event::EventType;

use crate::harness::worker::PROGRAM;
use crate::harness::{Reply, World, eventually};

/// What a terminal is told to do when a program leaves its screen.
const LEAVES_SCREEN: &str = "\u{1b}[?1049l";

/// A program in a pseudo-terminal of 100 columns and 30 rows, which `script` makes.
struct Terminal {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(world: &World, arguments: &str) -> Self {
        let command = format!("stty rows 30 cols 100; exec '{PROGRAM}' {arguments}");
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .envs(world.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut output, copy) = (child.stdout.take().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                copy.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, shown }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    async fn shows(&self, text: &str) {
        eventually(&format!("the terminal shows {text:?}"), async || self.shown().contains(text).then_some(())).await;
    }

    fn press(&mut self, keys: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(keys).unwrap();
    }

    /// Waits for the end of the program, which must leave the terminal as it was.
    async fn ends_well(mut self) {
        let status = eventually("the program ends", async || self.child.try_wait().unwrap()).await;
        assert!(status.success(), "{status}");
        self.shows(LEAVES_SCREEN).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_what_waits_and_leaves_the_terminal_as_it_was() {
    let world = World::with(&[
        ("delivery.breaker.attempts_min", "1"),
        ("delivery.breaker.open_initial", "60s"),
        ("delivery.retry.initial", "60s"),
    ])
    .await;
    let webhook = world.webhook("/", &[EventType::TaskFailed]).await.to_string();
    world.receiver.answer(|_| Reply::status(500));
    let worker = world.worker().await;
    world.emit(EventType::TaskFailed, 20).await;
    let server = format!("--interval 300ms --server {}", worker.address());

    let mut live = Terminal::start(&world, &format!("top {server}"));
    live.shows("unsettled").await;
    live.shows("open").await;
    live.shows(&webhook).await;
    live.press(b" ");
    live.shows("paused").await;
    live.press(b"q");
    live.ends_well().await;

    let live = Terminal::start(&world, &format!("top {server}"));
    live.shows("unsettled").await;
    let killed = Command::new("pkill").args(["-TERM", "-f", &format!("top {server}$")]).status().unwrap();
    assert!(killed.success());
    live.ends_well().await;

    let once = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.arg("top").args(arguments).envs(world.environment());
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let address = worker.address();
    let (code, text) = once(&["--once", "--server", &address]);
    assert!(code == Some(0) && text.contains("unsettled events:") && text.contains(&webhook), "{text}");
    let (code, text) = once(&["--once", "--server", "http://127.0.0.1:9"]);
    assert!(code == Some(1) && text.contains("http://127.0.0.1:9") && text.contains("refused"), "{text}");
    let (code, text) = once(&["--interval", "1ms"]);
    assert!(code == Some(2) && text.contains("from 200ms to 1h"), "{text}");
}
