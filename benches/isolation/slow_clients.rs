//! Slow clients of the admin server: what deliveries and pages get while thousands of connections send half a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use optio_webhooks::event::EventType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Figures, good_paths, measure, report};
use crate::rig::process::Process;
use crate::rig::world::World;
use crate::rig::{receiver, setting};

/// The time until a slow client that lost its connection opens the next one.
const PAUSE: Duration = Duration::from_secs(10);
/// The time between two requests for a page.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The role `slow`: keeps this many connections open to an address, each with half a request. Arguments: the address
/// and the number.
pub fn run(arguments: &[String]) {
    let address: SocketAddr = arguments[0].parse().expect("the argument is an address");
    let count: usize = arguments[1].parse().expect("the argument is a number");
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    runtime.block_on(async {
        for number in 0..count {
            tokio::spawn(async move {
                // They don't begin all at once, and so don't come back all at once.
                tokio::time::sleep(PAUSE * number as u32 / count as u32).await;
                loop {
                    if let Ok(mut stream) = TcpStream::connect(address).await {
                        let _ = stream.write_all(b"GET /sign-in HTTP/1.1\r\nhost: loc").await;
                        let _ = stream.read(&mut [0]).await;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        std::future::pending::<()>().await;
    });
}

/// Compares rounds with and without slow clients.
pub async fn compare() {
    let slow = setting("SLOW", 2_000);
    println!("{slow} slow connections to the admin server, against none");
    let (mut without, mut with, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..setting("ROUNDS", 3) {
        without.push(round(0).await.0);
        let (figures, took) = round(slow).await;
        with.push(figures);
        pages.extend(took);
    }
    report("slow clients", &with, &without);
    pages.sort();
    let ms = |part: usize| pages[pages.len() * part / 100].as_secs_f64() * 1_000.0;
    println!("  {} pages meanwhile: median {:.1} ms, 99 % within {:.1} ms", pages.len(), ms(50), ms(99));
}

async fn round(slow: usize) -> (Figures, Vec<Duration>) {
    let world = World::new(&[("admin.token", "a token of the benchmark")]).await;
    let (at, admin) = (receiver::free_address(), receiver::free_address());
    let _receiver = Process::role("receiver", &[at.to_string()]);
    world.webhooks(at, &good_paths(), &[EventType::TaskCompleted]).await;
    let mut worker = world.worker_at(env!("CARGO_BIN_EXE_optio-webhooks"), admin);
    ask(admin).await;
    let _slow = (slow > 0).then(|| Process::role("slow", &[admin.to_string(), slow.to_string()]));
    let done = Arc::new(AtomicBool::new(false));
    let asking = tokio::spawn(ask_until(admin, done.clone()));
    let figures = measure(&world, at, &mut worker).await;
    done.store(true, Ordering::Relaxed);
    (figures, asking.await.expect("every page comes"))
}

async fn ask_until(admin: SocketAddr, done: Arc<AtomicBool>) -> Vec<Duration> {
    let mut took = Vec::new();
    while !done.load(Ordering::Relaxed) {
        took.push(ask(admin).await);
        tokio::time::sleep(ASK_EVERY).await;
    }
    took
}

/// Gets a page over a new connection. Waits until the server listens.
async fn ask(admin: SocketAddr) -> Duration {
    let mut stream = loop {
        match TcpStream::connect(admin).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let began = Instant::now();
    let request = b"GET /sign-in HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("the server takes the request");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("the server answers");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("Sign in"), "{page}");
    began.elapsed()
}
