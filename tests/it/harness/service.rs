//! A Kafka or a Redis for one test, which the test can stop and start again.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// The users of a broker of [`Service::kafka_with_users`].
pub const USERS: [&str; 4] = ["broker", "worker", "admin", "producer"];

/// The listener keeps its name, and gets the protocol with passwords. The controller's listener has no passwords.
static USERS_SETTINGS: LazyLock<String> = LazyLock::new(|| {
    let users: String = USERS.iter().map(|user| format!(" user_{user}=\"{user}\"")).collect();
    format!(
        "listener.security.protocol.map=PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username=\"broker\" password=\"broker\"{users};
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:broker;User:ANONYMOUS"
    )
});

pub struct Service {
    name: &'static str,
    environment: Vec<(&'static str, String)>,
    port: String,
    folder: tempfile::TempDir,
    /// The address for clients: host and port of a Kafka, URL of a Redis.
    pub address: String,
}

impl Service {
    pub fn kafka() -> Self {
        Self::start("kafka", "")
    }

    /// A broker whose files the test can reach, which they can't be in Docker.
    pub fn kafka_on_this_machine() -> Self {
        Self::start_at("kafka", free_ports(2), vec![("KAFKA_JAVA_OPTIONS", "-Dtest=files".to_owned())])
    }

    /// Removes the records from `offset` on from the log of a partition, as if the machine had failed before they were on
    /// the disk. The broker must not be running, and each record must be in a batch of its own.
    pub fn lose_from(&self, topic: &str, partition: i32, offset: u64) {
        let folder = self.folder.path().join(format!("kafka-{}/data/{topic}-{partition}", self.port));
        let path = folder.join("00000000000000000000.log");
        let log = std::fs::read(&path).unwrap();
        // A batch begins with the offset of its first record and the number of bytes that follow.
        let (mut at, mut batch) = (0, 0);
        while batch < offset {
            let number = |from: usize, len: usize| {
                log[from..from + len].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
            };
            assert_eq!(number(at, 8), batch, "each record is in a batch of its own");
            at += 12 + number(at + 8, 4) as usize;
            batch += 1;
        }
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(at as u64).unwrap();
    }

    /// A broker that enforces access control lists. Everything is allowed until a test creates the first one.
    pub fn kafka_with_acls() -> Self {
        Self::start(
            "kafka",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nallow.everyone.if.no.acl.found=true",
        )
    }

    /// A broker whose users sign in with a password, and may only do what access control lists allow. Each of
    /// [`USERS`] has its own name as its password. `broker` may do everything.
    pub fn kafka_with_users() -> Self {
        Self::start("kafka", USERS_SETTINGS.as_str())
    }

    pub fn redis() -> Self {
        Self::start("redis", "")
    }

    fn start(name: &'static str, settings: &str) -> Self {
        Self::start_at(name, free_ports(2), vec![("KAFKA_SETTINGS", settings.to_owned())])
    }

    /// Starts a service with these variables.
    pub(super) fn start_at(name: &'static str, port: u16, environment: Vec<(&'static str, String)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut service = Self { name, environment, port: port.to_string(), folder, address: String::new() };
        service.address = service.call("start");
        service
    }

    /// Stops the service and keeps its data.
    pub fn halt(&self) {
        self.call("halt");
    }

    /// Starts the service again with its data.
    pub fn resume(&self) {
        self.call("resume");
    }

    /// Kills the service. Its data stays.
    pub fn kill(&self) {
        self.call("kill");
    }

    /// Lets the service stand still.
    pub fn freeze(&self) {
        self.call("freeze");
    }

    /// Lets the service go on after [`Service::freeze`].
    pub fn thaw(&self) {
        self.call("thaw");
    }

    fn call(&self, verb: &str) -> String {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/services").join(self.name);
        let mut command = Command::new(&script);
        command.args([verb, &self.port]).env("SERVICES_DIR", self.folder.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {verb}: {errors}", script.display());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.call("stop");
    }
}

/// Chooses ports below the kernel's range for outgoing connections, so that no connection takes them while the service
/// is stopped. Returns the first of `count` ports in a row. A Kafka also needs the next port.
pub(super) fn free_ports(count: u16) -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let start = 28_000 + (std::process::id() % 1_000) as u16 * 2 + rand::random::<u16>() % 500 * 4;
    (start..32_000).step_by(2).find(|port| (*port..port + count).all(free)).expect("this range has free ports")
}
