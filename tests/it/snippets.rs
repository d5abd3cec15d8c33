//! The snippets of the verify page, each run with a real delivery.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use optio_webhooks::event::EventType;

use crate::harness::world::SECRET;
use crate::harness::{World, skipped};

#[path = "../../src/admin/snippets/verify.rs"]
mod verify;

fn snippet(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/snippets").join(name)
}

/// Whether the snippet accepts `header` as the signature of `body`.
fn accepts(program: &str, arguments: &[&str], file: &str, header: &str, body: &[u8]) -> bool {
    let mut child = Command::new(program)
        .args(arguments)
        .arg(snippet(file))
        .args([header, SECRET])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(body).unwrap();
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(0 | 1)), "{program}: {status}");
    status.success()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_snippet_accepts_a_real_delivery_and_nothing_else() {
    let world = World::new().await;
    let _worker = world.worker().await;
    world.webhook("/hook", &[EventType::TaskCompleted]).await;
    world.emit(EventType::TaskCompleted, 1).await;
    let request = world.receiver.arrived(1).await.remove(0);
    let (header, body) = (request.header("x-optio-signature"), &request.body);
    let mut other = body.to_vec();
    other[0] ^= 1;
    assert!(verify::is_genuine(SECRET, body, header));
    assert!(!verify::is_genuine(SECRET, &other, header) && !verify::is_genuine(SECRET, body, "sha256=zz"));
    for (program, arguments, file) in [
        ("node", &[][..], "verify.mjs"),
        ("python3", &[], "verify.py"),
        ("go", &["run"], "verify.go"),
        ("ruby", &[], "verify.rb"),
    ] {
        let version = if program == "go" { "version" } else { "--version" };
        if !Command::new(program).arg(version).output().is_ok_and(|output| output.status.success()) {
            skipped(&format!("{program} is missing, so its snippet was not run"));
            continue;
        }
        assert!(accepts(program, arguments, file, header, body), "{program}");
        assert!(!accepts(program, arguments, file, header, &other), "{program} accepted another body");
        assert!(!accepts(program, arguments, file, "sha256=00", body), "{program} accepted another signature");
    }
}
