//! Redis with TLS and a user that may do only what `docs/operations.md` says.

use std::process::{Child, Command, Stdio};

use optio_webhooks::event::EventType;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::harness::worker::PROGRAM;
use crate::harness::{Reply, World, eventually};

/// A Redis that takes TLS connections only, of clients with a certificate.
struct SecuredRedis {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl SecuredRedis {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "the authority of the tests");
        std::fs::write(folder.path().join("ca.pem"), authority.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(authority, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            std::fs::write(folder.path().join(format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem())
                .unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
        let rule =
            documented.lines().find_map(|line| line.strip_prefix("user optio-webhooks ")).expect("there is a rule");
        let rule = rule.replace(">PASSWORD", ">p/ss#word");
        let users = format!("user default off\nuser operator on >operator ~* &* +@all\nuser optio-webhooks {rule}\n");
        std::fs::write(folder.path().join("users.acl"), users).unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--tls-cert-file", &path("server.pem"), "--tls-key-file", &path("server.key")])
            .args(["--tls-ca-cert-file", &path("ca.pem"), "--tls-auth-clients", "yes"])
            .args(["--aclfile", &path("users.acl"), "--dir", &path(""), "--appendonly", "yes", "--save", ""])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self { child, port, folder };
        eventually("the secured redis answers", async || std::net::TcpStream::connect(("127.0.0.1", port)).ok()).await;
        redis
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("redis.url", format!("rediss://optio-webhooks:p%2Fss%23word@localhost:{}/", self.port)),
            ("redis.prefix", "optio-webhooks:".to_owned()),
            ("redis.ca_file", self.file("ca.pem")),
            ("redis.client_certificate_file", self.file("client.pem")),
            ("redis.client_key_file", self.file("client.key")),
        ]
    }

    /// Asks as the operator.
    fn ask(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args([
                "--tls",
                "-h",
                "localhost",
                "-p",
                &self.port.to_string(),
                "--user",
                "operator",
                "--pass",
                "operator",
            ])
            .args([
                "--cacert",
                &self.file("ca.pem"),
                "--cert",
                &self.file("client.pem"),
                "--key",
                &self.file("client.key"),
            ])
            .args(command)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for SecuredRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_over_tls_as_a_user_with_the_documented_rights() {
    let redis = SecuredRedis::start().await;
    let settings = redis.settings();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let world = World::with(&settings).await;
    let mut worker = world.worker().await;
    world.receiver.answer(|request| Reply::status(if request.path == "/gone" { 410 } else { 200 }));
    let mut ids = Vec::new();
    for path in ["/fine", "/gone"] {
        let added =
            json!({"url": world.receiver.url(path), "events": ["task.completed"], "secret": "a long enough secret"});
        let (status, answer) = worker.call("POST", "/api/webhooks", Some(added)).await;
        assert_eq!(status, 201, "{answer}");
        ids.push(answer["webhook"]["id"].as_str().unwrap().to_owned());
    }
    world.emit(EventType::TaskCompleted, 30).await;
    eventually("all deliveries of the healthy webhook arrive", async || {
        let requests = world.receiver.requests();
        (requests.iter().filter(|request| request.path == "/fine").count() == 30).then_some(())
    })
    .await;
    world.settled().await;
    let path = |rest: &str| format!("/api/webhooks/{}{rest}", ids[0]);
    let (status, deliveries) = worker.call("GET", &path("/deliveries"), None).await;
    let entry =
        deliveries["deliveries"][0]["id"].as_str().unwrap_or_else(|| panic!("{status} {deliveries}")).to_owned();
    for (method, rest, body, expected) in [
        ("POST", format!("/deliveries/{entry}/redeliver"), None, 202),
        ("POST", "/test".to_owned(), None, 200),
        ("POST", "/rotate-secret".to_owned(), Some(json!({"overlap": "1m"})), 200),
        ("PATCH", String::new(), Some(json!({"description": "changed"})), 200),
        ("DELETE", String::new(), None, 204),
    ] {
        let (status, answer) = worker.call(method, &path(&rest), body).await;
        assert_eq!(status, expected, "{method} {rest}: {answer}");
    }
    for path in ["/api/status", "/api/audit", "/api/dead-letters"] {
        let (status, answer) = worker.call("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    let cookie = worker.sign_in(crate::harness::world::TOKEN).await;
    assert_eq!(worker.page_as(&cookie, "/settings/webhooks").await.0, 200);
    for arguments in
        [&["secrets", "rotate"][..], &["webhooks", "list"], &["replay", "--all", "--yes"], &["sessions", "revoke"]]
    {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).envs(world.environment());
        let output = tokio::task::block_in_place(|| command.output().unwrap());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    let (_, ready) = worker.page("/readyz").await.unwrap();
    assert!(ready.contains(r#""ready":true"#) && ready.contains(r#""conditions":[]"#), "{ready}");
    assert!(worker.terminate().await.success());
    let refused = redis.ask(&["ACL", "LOG"]);
    assert!(refused.trim().is_empty(), "the rule lacks something: {refused}");
    assert!(redis.ask(&["DBSIZE"]).trim().parse::<usize>().unwrap() > 3, "the operator can look at it");
}
