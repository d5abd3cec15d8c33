//! A Redis with a password, which writes everything to its append-only file at once. Its settings are in a file, so
//! that the password is in no command line.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::eventually;

pub struct GuardedRedis {
    pub url: String,
    server: Child,
    folder: tempfile::TempDir,
    _settings: tempfile::NamedTempFile,
}

impl GuardedRedis {
    /// Starts it. `password` must not need percent-encoding.
    pub async fn start(password: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let settings = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nlogfile redis.log\nloglevel debug\nrequirepass {password}\nsave ''\n\
             appendonly yes\nappendfsync always\naof-use-rdb-preamble no\nrdbcompression no\n",
            folder.path().display()
        );
        std::fs::write(settings.path(), text).unwrap();
        let mut command = Command::new("redis-server");
        let server = command.arg(settings.path()).stdout(Stdio::null()).spawn().expect("redis-server is installed");
        let redis = Self { url: format!("redis://:{password}@127.0.0.1:{port}/"), server, folder, _settings: settings };
        let client = redis::Client::open(redis.url.as_str()).unwrap();
        eventually("Redis answers", async || client.get_connection().ok().map(drop)).await;
        redis
    }

    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// Every file that the server wrote.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        read(self.folder.path(), &mut files);
        files
    }
}

fn read(folder: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, files);
        } else {
            files.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

impl Drop for GuardedRedis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
