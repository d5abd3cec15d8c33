//! The whole system at trace level with known secrets: none of their bytes gets anywhere.

mod guarded_redis;
mod needles;
mod visitor;

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use optio_webhooks::event::EventType;
use rdkafka::Message as _;
use rdkafka::message::Headers as _;
use serde_json::{Value, json};

use crate::harness::worker::{PROGRAM, Worker};
use crate::harness::{Reply, World, eventually};
use guarded_redis::GuardedRedis;
use needles::Needles;
use visitor::Visitor;

const ADMIN: &str = "sweep<admin>\"token\"&/one";
const CHANGER: &str = "sweep-changer-token/two+";
const READER: &str = "sweep-reader-token/three+";
const REDIS_PASSWORD: &str = "sweep-redis-password-four";
const SASL_PASSWORD: &str = "sweep-sasl-password-five";
const KEY_PASSWORD: &str = "sweep-ssl-key-password-six";
const PROXY_PASSWORD: &str = "sweep-proxy-password-seven";
/// 32 bytes, and 32 other bytes.
const SEALING_KEY: &str = "c3dlZXAtc2VhbGluZy1rZXktZWlnaHQtMDEyMzQ1Njc=";
const NEW_SEALING_KEY: &str = "c3dlZXAtc2VhbGluZy1rZXktbmluZS0wMTIzNDU2Nzg=";
const PLAIN: &str = "sweep <plain> \"secret\" & ten/+é";
const ROTATED: &str = "sweep <other> \"secret\" & eleven/+é";
/// The value of a header of a webhook.
const HEADER: &str = "Bearer sweep-header-fifteen/+";
/// The base64 of 24 bytes.
const STANDARD: &str = "whsec_c3dlZXAtc2VjcmV0LXR3ZWx2ZS0wMTIz";
/// The base64 of 10 bytes, which are too few.
const SHORT: &str = "whsec_c3dlZXAtc2hvcg==";
/// The base64 of 32 bytes.
const PRIVATE: &str = "whsk_c3dlZXAtcHJpdmF0ZS1rZXktZm91cnRlZW4tMDEyMzQ=";
/// What is no secret and must be found, so that the search is known to look.
const DESCRIPTION: &str = "sweep: the harmless description";

fn secrets(generated: &str) -> Needles {
    use base64::Engine as _;
    let mut needles = Needles::default();
    for (name, text) in [
        ("admin.token", ADMIN),
        ("a token that may change", CHANGER),
        ("a token that may read", READER),
        ("the password of Redis", REDIS_PASSWORD),
        ("sasl.password", SASL_PASSWORD),
        ("ssl.key.password", KEY_PASSWORD),
        ("the password of the proxy", PROXY_PASSWORD),
        ("the sealing key", SEALING_KEY),
        ("the new sealing key", NEW_SEALING_KEY),
        ("a plain secret", PLAIN),
        ("the value of a header", HEADER),
        ("a rotated secret", ROTATED),
        ("a standard secret", STANDARD),
        ("a short secret", SHORT),
        ("a private key", PRIVATE),
        ("a generated secret", generated),
    ] {
        needles.add(name, text.as_bytes());
        let encoded = text.split('_').next_back().unwrap();
        if let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(encoded) {
            needles.add(&format!("{name}, decoded"), &bytes);
        }
    }
    needles
}

/// The settings of every process, with everything printed that can be printed.
async fn world(redis: &GuardedRedis) -> World {
    World::with(&[
        ("redis.url", &redis.url),
        ("secrets.keys", &format!("sweep:{SEALING_KEY},new:{NEW_SEALING_KEY}")),
        ("admin.token", ADMIN),
        (
            "admin.tokens",
            &format!(
                r#"[{{name="changer", token="{CHANGER}", role="change"}}, {{name="reader", token="{READER}", role="read"}}]"#
            ),
        ),
        ("kafka.properties.sasl_password", SASL_PASSWORD),
        ("kafka.properties.ssl_key_password", KEY_PASSWORD),
        ("kafka.properties.debug", "all"),
        ("delivery.attempts_max", "2"),
    ])
    .await
}

fn environment(world: &World) -> Vec<(String, String)> {
    let mut environment = world.environment();
    environment.extend([("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    environment
}

/// A process that has its secret from standard input, and what it printed.
struct Commands {
    environment: Vec<(String, String)>,
    printed: Vec<(String, Vec<u8>)>,
    command_lines: Vec<(String, Vec<u8>)>,
}

fn command_line(id: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{id}/cmdline")).unwrap()
}

/// The command line of a child that has just been spawned. The system shows it a moment after that.
fn command_line_of(child: &mut Child) -> Vec<u8> {
    loop {
        let shown = command_line(child.id());
        if !shown.is_empty() || child.try_wait().unwrap().is_some() {
            return shown;
        }
        std::thread::yield_now();
    }
}

impl Commands {
    fn run(&mut self, arguments: &[&str], settings: &[(&str, &str)], input: &str) -> (Option<i32>, String) {
        tokio::task::block_in_place(|| {
            let mut command = Command::new(PROGRAM);
            command.args(arguments).envs(self.environment.iter().cloned());
            for (key, value) in settings {
                command.env(optio_webhooks::config::variable(key), value);
            }
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            self.command_lines.push((format!("{arguments:?}"), command_line_of(&mut child)));
            // A command that reads no input may have ended before.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            let output = child.wait_with_output().unwrap();
            let printed = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&printed).into_owned();
            self.printed
                .push((format!("{arguments:?} {:?}", settings.iter().map(|(k, _)| k).collect::<Vec<_>>()), printed));
            (output.status.code(), text)
        })
    }
}

/// Uses the API: good and refused bodies, with every kind of secret. Returns the ids of the webhooks, and
/// a secret that was generated.
async fn use_the_api(world: &World, visitor: &Visitor<'_>) -> (Vec<String>, String) {
    let mut ids = Vec::new();
    for (path, secret) in [("/good", PLAIN), ("/flaky", STANDARD), ("/dead", PRIVATE)] {
        let draft = json!({ "url": world.receiver.url(path), "events": ["task.completed"], "secret": secret,
            "description": DESCRIPTION, "headers": [{ "name": "Authorization", "value": HEADER }] });
        let added = visitor.call(ADMIN, "POST", "/api/webhooks", Some(draft)).await;
        assert_eq!(added.status, 201, "{}", added.body);
        let added: Value = serde_json::from_str(&added.body).unwrap();
        ids.push(added["webhook"]["id"].as_str().unwrap().to_owned());
    }
    // What is entered as a URL or an event type is repeated, so that its mistake is seen. Nothing else is.
    let (events, url) = (json!(["task.completed"]), world.receiver.url("/good"));
    for refused in [
        json!({ "url": "ftp://example.com", "events": events, "secret": PLAIN }),
        json!({ "url": url, "events": ["task.nonsense"], "secret": PLAIN }),
        json!({ "url": url, "events": events, "secret": SHORT }),
        json!({ "url": url, "events": events, "secret": format!("{STANDARD}!") }),
        json!({ "url": url, "events": events, "secret": { "text": PLAIN } }),
        json!({ "url": url, "events": events, "secret": [PLAIN] }),
        json!({ "url": url, "events": PLAIN, "secret": PLAIN }),
        json!({ "url": url, "events": events, "active": PLAIN }),
        json!({ "url": url, "events": events, "signing": PLAIN }),
        json!({ "url": url, "events": events, "format": PLAIN }),
        json!({ "url": url, "events": events, PLAIN: true }),
        json!({ "url": url, "events": events, "headers": [{ "name": "Host", "value": HEADER }] }),
        json!({ "url": url, "events": events, "headers": [{ "name": "X-Key", "value": format!("{HEADER}\n") }] }),
        json!({ "url": url, "events": events, "headers": { "Authorization": HEADER } }),
        json!({ "url": url, "events": events, "headers": [HEADER] }),
        json!({ "url": url, "events": events, "headers": [{ "name": "X-Key", "value": [HEADER] }] }),
        json!({ "url": url, "events": events, "secret": PLAIN, "ratePerSecond": PLAIN }),
        json!(PLAIN),
        json!([PLAIN]),
    ] {
        let answer = visitor.call(CHANGER, "POST", "/api/webhooks", Some(refused.clone())).await;
        assert_eq!(answer.status, 400, "{refused}: {}", answer.body);
    }
    let one = format!("/api/webhooks/{}", ids[0]);
    for refused in [
        json!(PLAIN),
        json!({ "secret": [PLAIN] }),
        json!({ "secret": SHORT }),
        json!({ "overlap": PLAIN }),
        json!({ PLAIN: 1 }),
    ] {
        let answer = visitor.call(ADMIN, "POST", &format!("{one}/rotate-secret"), Some(refused.clone())).await;
        assert_eq!(answer.status, 400, "{refused}: {}", answer.body);
    }
    for refused in [json!({ "publicKey": PLAIN }), json!({ "secret": SHORT }), json!({ "active": PLAIN })] {
        assert_eq!(visitor.call(ADMIN, "PATCH", &one, Some(refused)).await.status, 400);
    }
    for token in [&ADMIN[..ADMIN.len() - 1], &format!("{CHANGER}x")] {
        assert_eq!(visitor.call(token, "GET", "/api/webhooks", None).await.status, 401);
    }
    assert_eq!(visitor.call(READER, "DELETE", &one, None).await.status, 403);
    assert_eq!(visitor.call(CHANGER, "POST", &format!("{one}/test"), None).await.status, 200);
    let rotated =
        visitor.call(ADMIN, "POST", &format!("{one}/rotate-secret"), Some(json!({ "secret": ROTATED }))).await;
    assert_eq!(rotated.status, 200, "{}", rotated.body);
    // A generated secret is shown by the answer that made it, and by nothing else.
    let generated = visitor.call(ADMIN, "POST", &format!("/api/webhooks/{}/rotate-secret", ids[1]), None).await;
    visitor.answers.lock().unwrap().pop();
    let generated: Value = serde_json::from_str(&generated.body).unwrap();
    (ids, generated["generatedSecret"].as_str().unwrap().to_owned())
}

/// Uses the pages: good and refused forms, and sign-ins.
async fn use_the_pages(world: &World, visitor: &Visitor<'_>, id: &str) {
    for wrong in [&ADMIN[1..], &format!("{READER}x")] {
        assert_eq!(visitor.sign_in(wrong).await.status, 401);
    }
    let (reader, changer) = (visitor.sign_in(READER).await.cookie, visitor.sign_in(ADMIN).await.cookie);
    let url = world.receiver.url("/good");
    let one = format!("/settings/webhooks/{id}");
    for (path, fields, status) in [
        ("/settings/webhooks", vec![("url", "nonsense"), ("events", "task.failed"), ("secret", PLAIN)], 400),
        ("/settings/webhooks", vec![("url", "nonsense"), ("headers", &*format!("Authorization: {HEADER}"))], 400),
        (
            "/settings/webhooks",
            vec![("url", "https://example.com"), ("events", "task.failed"), ("headers", HEADER)],
            400,
        ),
        ("/settings/webhooks", vec![("url", &*url), ("events", "task.failed"), ("secret", SHORT)], 400),
        (
            "/settings/webhooks",
            vec![("url", &*url), ("events", "task.failed"), ("secret", PRIVATE), ("rate_per_second", "x")],
            400,
        ),
        ("/settings/webhooks", vec![("url", &*url), ("events", "task.failed"), ("secret", STANDARD)], 303),
        (&*format!("{one}/rotate-secret"), vec![("secret", SHORT)], 400),
        (&*format!("{one}/rotate-secret"), vec![("secret", PLAIN), ("overlap", "24h")], 303),
        (&*format!("{one}/test"), vec![("event", "task.failed")], 303),
    ] {
        let answer = visitor.form(&changer, path, &fields).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    assert_eq!(visitor.form(&reader, &format!("{one}/rotate-secret"), &[("secret", PLAIN)]).await.status, 403);
    for path in ["", "/verify", "/deliveries", "/delete"] {
        assert_eq!(visitor.page(&changer, &format!("{one}{path}")).await.status, 200, "{path}");
    }
    for path in ["/settings/webhooks", "/settings/webhooks/new", "/dead-letters", "/status", "/audit"] {
        assert_eq!(visitor.page(&changer, path).await.status, 200, "{path}");
    }
    assert_eq!(visitor.form(&changer, "/sign-out", &[]).await.status, 303);
}

/// Runs commands, with settings that are right and wrong.
fn use_the_commands(world: &World, commands: &mut Commands, id: &str) {
    let url = world.receiver.url("/good");
    let proxy = format!("http://me:{PROXY_PASSWORD}@127.0.0.1:1");
    let add = ["webhooks", "add", "--url", &url, "--events", "task.failed", "--secret-stdin"];
    let keys = format!("new:{NEW_SEALING_KEY},sweep:{SEALING_KEY}");
    let both: (&str, &str) = ("secrets.keys", &keys);
    for (arguments, settings, input, code) in [
        (&add[..], &[][..], PLAIN, 0),
        (&add, &[], SHORT, 2),
        (&["webhooks", "update", id, "--secret-stdin"], &[], PLAIN, 0),
        (&["webhooks", "test", id], &[("delivery.proxy", &*proxy)], "", 1),
        (&["webhooks", "show", id, "--json"], &[], "", 0),
        (&["config", "show"], &[("delivery.proxy", &proxy)], "", 0),
        (&["config", "show", "--json"], &[("delivery.proxy", &proxy), both], "", 0),
        (&["config", "check"], &[("delivery.proxy", &proxy)], "", 0),
        (&["secrets", "rotate"], &[both], "", 0),
        (&["config", "check"], &[("kafka.properties.sasl_pasword", SASL_PASSWORD)], "", 78),
        (&["config", "check"], &[("redis.url", "redis://:sweep-redis-password-four@[nonsense/")], "", 78),
        (&["config", "check"], &[("redis.url", "sweep-redis-password-four")], "", 78),
        (&["config", "check"], &[("delivery.proxy", "socks9://me:sweep-proxy-password-seven@proxy")], "", 78),
        (&["config", "check"], &[("admin.tokens", r#"[{name="x", token="sweep-reader-token/three+"#)], "", 78),
        (
            &["config", "check"],
            &[("admin.tokens", r#"[{name="x", token="sweep-reader-token/three+", role="nonsense"}]"#)],
            "",
            78,
        ),
        (&["config", "check"], &[("admin.tokenn", ADMIN)], "", 78),
        (&["config", "check"], &[("admin.listen", READER)], "", 78),
        (&["config", "check"], &[("secrets.keys", SEALING_KEY)], "", 78),
        (&["run"], &[("kafka.properties.sasl_pasword", SASL_PASSWORD)], "", 78),
    ] {
        let (exit, printed) = commands.run(arguments, settings, input);
        assert_eq!(exit, Some(code), "{arguments:?} {settings:?}: {printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_secret_gets_out_at_trace_level() {
    let redis = GuardedRedis::start(REDIS_PASSWORD).await;
    let world = world(&redis).await;
    let environment = environment(&world);
    let mut worker = Worker::start(&environment);
    let mut admin = Worker::start_with(&["--log-format", "json", "run", "--only", "admin"], &environment);
    worker.readiness(true).await;
    admin.readiness(true).await;
    world.receiver.answer(|request| match (request.path.as_str(), request.attempt()) {
        ("/flaky", 1) | ("/dead", 1..=2) => Reply::status(500),
        _ => Reply::status(200),
    });
    let (visitor, other) = (Visitor::new(&worker), Visitor::new(&admin));
    let (ids, generated) = use_the_api(&world, &visitor).await;
    use_the_pages(&world, &other, &ids[0]).await;
    let mut commands = Commands { environment: environment.clone(), printed: vec![], command_lines: vec![] };
    for (name, id) in [("worker", worker.id()), ("admin", admin.id()), ("redis", redis.id())] {
        commands.command_lines.push((name.to_owned(), command_line(id)));
    }
    world.emit(EventType::TaskCompleted, 3).await;
    eventually("three deliveries are dead-lettered", async || {
        (world.count(&world.names().dead_letters()) == 3).then_some(())
    })
    .await;
    let replay = visitor.call(CHANGER, "POST", "/api/dead-letters/replay", Some(json!({ "all": true }))).await;
    assert_eq!(replay.status, 202, "{}", replay.body);
    eventually("the dead letters are replayed", async || (world.count(&world.names().replays()) == 3).then_some(()))
        .await;
    world.settled().await;
    use_the_commands(&world, &mut commands, &ids[0]);
    for id in &ids {
        for path in ["", "/deliveries"] {
            assert_eq!(visitor.call(READER, "GET", &format!("/api/webhooks/{id}{path}"), None).await.status, 200);
        }
    }
    for path in
        ["/api/webhooks", "/api/audit?limit=200", "/api/dead-letters", "/api/status", "/openapi.json", "/readyz"]
    {
        assert_eq!(visitor.call(READER, "GET", path, None).await.status, 200, "{path}");
    }
    let mut metrics = Vec::new();
    for process in [&worker, &admin] {
        metrics.push(("metrics".to_owned(), process.page("/metrics").await.unwrap().1.into_bytes()));
    }
    let mut logs = Vec::new();
    for id in &ids {
        let log = world.unpacked_log(id.parse().unwrap()).await;
        logs.extend(log.into_iter().map(|(meta, payload)| (id.clone(), [meta, payload].concat())));
    }
    let _: () = redis::cmd("SAVE").query_async(&mut world.redis.clone()).await.unwrap();
    let answers = [visitor.answers.into_inner().unwrap(), other.answers.into_inner().unwrap()].concat();
    assert!(worker.terminate().await.success() && admin.terminate().await.success());

    let log = worker.log();
    assert!(log.contains("TRACE") && log.contains("[thrd:"), "librdkafka's debug lines are in the log as well");
    let id = ids[0].as_str();
    let secrets = secrets(&generated);
    let mut leaks = Vec::new();
    for (place, found, control) in [
        ("the log of the worker", vec![(String::new(), log.into_bytes())], id),
        ("the log of the admin server", vec![(String::new(), admin.log().into_bytes())], id),
        ("what the commands print", commands.printed, DESCRIPTION),
        ("command lines", commands.command_lines, id),
        ("metrics", metrics, "optio_webhooks_admin_sign_in_failures_total 2"),
        ("answers", answers, DESCRIPTION),
        ("records", records(&world), ids[2].as_str()),
        ("the delivery logs", logs, "x-optio-signature"),
        ("the files of Redis", redis.files(), DESCRIPTION),
        ("requests to receivers", requests(&world), "x-optio-signature"),
    ] {
        let mut controls = Needles::default();
        controls.add(control, control.as_bytes());
        let is_searched = found.iter().any(|(_, bytes)| !controls.in_text(bytes).is_empty());
        assert!(is_searched, "{control:?} is not in {place}, so nothing was searched");
        for (name, bytes) in &found {
            leaks.extend(secrets.in_text(bytes).into_iter().map(|secret| format!("{place} {name}: {secret}")));
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}

/// Every record of every topic: key, value and headers.
fn records(world: &World) -> Vec<(String, Vec<u8>)> {
    let names = world.names();
    let topics = [names.events().to_owned(), names.retry(1), names.replays(), names.dead_letters()];
    let mut found = Vec::new();
    for topic in topics {
        for record in world.records(&topic) {
            let mut bytes = [record.key().unwrap_or_default(), b"\n", record.payload().unwrap_or_default()].concat();
            for header in record.headers().into_iter().flat_map(|headers| headers.iter()) {
                bytes.extend([b"\n", header.key.as_bytes(), b": ", header.value.unwrap_or_default()].concat());
            }
            found.push((topic.clone(), bytes));
        }
    }
    found
}

fn requests(world: &World) -> Vec<(String, Vec<u8>)> {
    let show = |request: crate::harness::receiver::Request| {
        let mut bytes = request.body.to_vec();
        // The receiver is the one that the value of the header is for.
        for (name, value) in request.headers.iter().filter(|(name, _)| *name != "authorization") {
            bytes.extend([b"\n", name.as_str().as_bytes(), b": ", value.as_bytes()].concat());
        }
        (request.path, bytes)
    };
    world.receiver.requests().into_iter().map(show).collect()
}
