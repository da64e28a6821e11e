//! A nats-server for one check: on a port of its own choice, with its store in a temporary directory.
//!
//! Invariant: it is killed and waited for before its directory goes. Tests that restart servers have more in `naq-tests`.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// From start to the file that names the port.
const START_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct NatsServer {
    pub(crate) url: String,
    child: Child,
    _dir: TempDir,
}

/// What `cargo xtask test` names, else what `cargo xtask tools` fetched.
#[expect(clippy::disallowed_methods, reason = "`cargo xtask test` tells the tests by variables where programs are")]
fn program(name: &str, variable: &str) -> PathBuf {
    let fetched = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin").join(name);
    let told = std::env::var_os(variable).filter(|told| !told.is_empty());
    let program = told.map_or_else(fetched, PathBuf::from);
    assert!(program.is_file(), "no {} here; run `cargo xtask tools` once", program.display());
    program
}

impl NatsServer {
    pub(crate) async fn start(name: &str, variable: &str) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let mut child = Command::new(program(name, variable))
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
            .arg(dir.path().join("store"))
            .arg("--ports_file_dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server starts");
        let begun = Instant::now();
        loop {
            if let Some(url) = listening(dir.path()) {
                return Self { url, child, _dir: dir };
            }
            let ended = child.try_wait().expect("a child of ours can be asked");
            assert!(ended.is_none(), "nats-server ended: {ended:?}");
            assert!(begun.elapsed() < START_LIMIT, "nats-server did not name its port within {START_LIMIT:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The client URL, once the server has written its ports file.
fn listening(dir: &Path) -> Option<String> {
    let mut files = std::fs::read_dir(dir).ok()?.filter_map(Result::ok).map(|file| file.path());
    let ports = files.find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
    let text = std::fs::read_to_string(ports).ok()?;
    let ports: serde_json::Value = serde_json::from_str(&text).ok()?;
    ports["nats"][0].as_str().map(str::to_owned)
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // A child that cannot be killed has ended already; waiting for it is all that is left to do.
        self.child.kill().ok();
        self.child.wait().expect("a child of ours can be waited for");
    }
}
