//! A nats-server that the measurements have for themselves.
//!
//! Invariant: it listens on loopback at a port that the system chose, and ends with its owner.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::tools;

/// The server whose ratios have to be kept.
pub(super) const GATED: &str = "2.15";
const START_LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts one with JetStream, all its files in `folder`, and waits until it listens.
    pub(super) fn start(program: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let log = File::create(folder.join("log"))?;
        let child = Command::new(program)
            .args(["--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir"])
            .arg(folder.join("store"))
            .arg("--ports_file_dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut server = Server { child, url: String::new() };
        server.url = server.wait_for_port(folder)?;
        Ok(server)
    }

    /// The one whose ratios have to be kept, with its name.
    pub(super) fn gated(folder: &Path) -> Result<(&'static str, Self)> {
        Ok((GATED, Self::start(&tools::all()?.nats_2_15, &folder.join(GATED))?))
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The server writes its ports into a file once it listens.
    fn wait_for_port(&mut self, folder: &Path) -> Result<String> {
        let until = Instant::now() + START_LIMIT;
        while Instant::now() < until {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                // Half written at first.
                if path.extension().is_some_and(|extension| extension == "ports")
                    && let Ok(ports) = serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&path)?)
                    && let Some(url) = ports["nats"][0].as_str()
                {
                    return Ok(url.to_owned());
                }
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("nats-server ended ({status}):\n{}", fs::read_to_string(folder.join("log"))?);
            }
            sleep(Duration::from_millis(20));
        }
        bail!("nats-server did not listen within {START_LIMIT:?}:\n{}", fs::read_to_string(folder.join("log"))?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A child that cannot be killed has ended already.
        if self.child.kill().is_ok() {
            self.child.wait().expect("a killed child of ours can be waited for");
        }
    }
}
