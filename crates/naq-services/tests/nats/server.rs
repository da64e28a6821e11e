//! Real `nats-server` processes for tests.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use naq_services::storage::{
    SharedStorage,
    nats::{ConnectionOptions, NatsOptions},
};
use tempfile::TempDir;

/// A running server; killed on drop.
pub(crate) struct Server {
    binary: PathBuf,
    port: u16,
    dir: TempDir,
    config: String,
    child: Child,
}

/// The servers to test with, oldest first.
pub(crate) fn binaries() -> Vec<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the test runner says where the servers are")]
    let named = |variable: &str| std::env::var(variable).ok().map(PathBuf::from);
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools");
    let found: Vec<PathBuf> = [("NAQ_TEST_NATS_2_9", "nats-server-2.9"), ("NAQ_TEST_NATS_2_15", "nats-server-2.15")]
        .into_iter()
        .filter_map(|(variable, file)| named(variable).or_else(|| Some(repository.join(file))))
        .filter(|path| path.is_file())
        .collect();
    assert!(
        !found.is_empty(),
        "no nats-server: run `cargo xtask tools`, or set NAQ_TEST_NATS_2_9 and NAQ_TEST_NATS_2_15"
    );
    found
}

impl Server {
    pub(crate) fn start(binary: &Path) -> Self {
        Self::start_with(binary, "jetstream {}")
    }

    /// With more configuration; `{store}` stands for the data directory.
    pub(crate) fn start_with(binary: &Path, config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = spawn(binary, port, dir.path(), config);
        Self { binary: binary.to_owned(), port, dir, config: config.to_owned(), child }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Whether it forgets acknowledgements when it is killed.
    pub(crate) fn is_old(&self) -> bool {
        let version = Command::new(&self.binary).arg("-v").output().unwrap();
        String::from_utf8_lossy(&version.stdout).contains("v2.9.")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.binary, self.port, self.dir.path(), &self.config);
    }

    pub(crate) fn options(&self) -> NatsOptions {
        NatsOptions {
            connection: ConnectionOptions {
                servers: vec![self.url()],
                request_timeout: Duration::from_secs(3),
                ..ConnectionOptions::default()
            },
            ..NatsOptions::default()
        }
    }

    pub(crate) async fn open(&self) -> SharedStorage {
        naq_services::storage::nats::open(self.options()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(binary: &Path, port: u16, dir: &Path, config: &str) -> Child {
    let file = dir.join("server.conf");
    let text = format!("listen: \"127.0.0.1:{port}\"\n{config}\n");
    std::fs::write(&file, text).unwrap();
    let mut child = Command::new(binary)
        .arg("-c")
        .arg(&file)
        .arg("-sd")
        .arg(dir.join("data"))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.ends_with("Server is ready\n") {
        assert!(log.read_line(&mut seen).unwrap() > 0, "the server did not start:\n{seen}");
    }
    // The pipe must not fill up.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    child
}

/// Runs a test on each server.
pub(crate) async fn on_each_server<F: Future<Output = ()>>(test: impl Fn(Server) -> F) {
    for binary in binaries() {
        println!("on {}", binary.display());
        test(Server::start(&binary)).await;
    }
}
