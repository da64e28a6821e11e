//! A real nats-server on loopback with its store in a temporary folder: killed, restarted and reconfigured by tests.
//!
//! A server keeps its port over restarts. Ports are taken below the range from which the system serves outgoing
//! connections, so that none of those can take the port while the server is down; a port that another test took in the
//! same instant is noticed by the server's name in its greeting, and the next one is tried.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::programs::nats_program;
use crate::raw_nats::greeting;

/// From start to the first greeting. The longest seen was 15 s: 2.9 with 2 000 consumers to restore.
const START_LIMIT: Duration = Duration::from_secs(30);
/// From SIGTERM to the end of the process.
const STOP_LIMIT: Duration = Duration::from_secs(10);
const PORTS: std::ops::Range<u16> = 12_000..32_000;
const PORTS_TRIED: usize = 50;

/// The servers that every promise is tested against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerVersion {
    /// 2.9.10, the oldest that naq supports.
    V2_9,
    /// 2.15, the one whose speed is gated.
    V2_15,
}

impl ServerVersion {
    /// Both, oldest first.
    pub const ALL: [ServerVersion; 2] = [ServerVersion::V2_9, ServerVersion::V2_15];
}

/// What a server is started with; read again at every restart.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Whether JetStream is on.
    pub jetstream: bool,
    /// Bytes that JetStream may store in files; `None` leaves it to the server, which takes three quarters of what the disk
    /// has left. Each stream of events claims a gigabyte of them, used or not, and some tests have dozens.
    pub max_file_store: Option<u64>,
    /// Bytes that one message may have; `None` leaves it to the server (1 MiB).
    pub max_payload: Option<u32>,
    /// Folder of the store, for example on a small file system; `None` is a folder that goes with the server.
    pub store_dir: Option<PathBuf>,
    /// Further lines of the server's configuration file, for example `authorization { token: t }`.
    pub extra: String,
}

impl Default for NatsOptions {
    fn default() -> Self {
        let max_file_store = Some(1 << 40);
        NatsOptions { jetstream: true, max_file_store, max_payload: None, store_dir: None, extra: String::new() }
    }
}

/// A started server; killed, and its folder removed, when dropped.
#[derive(Debug)]
pub struct NatsServer {
    /// Used at the next [`NatsServer::restart`].
    pub options: NatsOptions,
    program: PathBuf,
    name: String,
    port: u16,
    child: Option<Child>,
    dir: TempDir,
}

impl NatsServer {
    /// Starts a server with JetStream and waits until it greets.
    pub async fn start(version: ServerVersion) -> Result<NatsServer> {
        NatsServer::start_with(version, NatsOptions::default()).await
    }

    /// Starts a server and waits until it greets.
    pub async fn start_with(version: ServerVersion, options: NatsOptions) -> Result<NatsServer> {
        let program = nats_program(version)?;
        let dir = crate::temp_folder("naq-nats-")?;
        let mut server = NatsServer { options, program, name: String::new(), port: 0, child: None, dir };
        for _ in 0..PORTS_TRIED {
            server.port = free_port()?;
            server.name = format!("naq-test-{}-{}", std::process::id(), server.port);
            match server.launch().await? {
                Launched::Ready => return Ok(server),
                Launched::PortTaken => {}
            }
        }
        bail!("no free port found in {PORTS_TRIED} tries")
    }

    /// `nats://127.0.0.1:<port>`; the same before and after a restart.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Where it listens; the same before and after a restart.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of the store.
    pub fn store_dir(&self) -> PathBuf {
        self.options.store_dir.clone().unwrap_or_else(|| self.dir.path().join("store"))
    }

    /// What the server has logged since it was first started.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map_or_else(|error| format!("(no log: {error})"), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Kills it with SIGKILL and waits until it is gone; nothing if it is not running.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("cannot kill nats-server")?;
            child.wait().context("cannot wait for nats-server")?;
        }
        Ok(())
    }

    /// Ends it with SIGTERM and waits until it is gone; nothing if it is not running.
    pub async fn stop(&mut self) -> Result<()> {
        if self.child.is_none() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        let until = Instant::now() + STOP_LIMIT;
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() {
                self.child = None;
            } else if Instant::now() > until {
                bail!("nats-server did not end within {STOP_LIMIT:?}\n{}", self.log());
            } else {
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    /// Starts it again, on the same port and store and with what `options` say now; kills it first if it runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let until = Instant::now() + START_LIMIT;
        while matches!(self.launch().await?, Launched::PortTaken) {
            if Instant::now() > until {
                bail!("port {} did not become free\n{}", self.port, self.log());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Lets it read its configuration again, as `options` say now.
    pub fn reload(&self) -> Result<()> {
        self.configure()?;
        self.signal(Signal::HUP)
    }

    /// Sends a signal: `STOP` and `CONT` make a server that is connected but silent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("nats-server is not running")?;
        let pid = Pid::from_raw(child.id().cast_signed()).context("nats-server has no pid")?;
        kill_process(pid, signal).context("cannot signal nats-server")
    }

    async fn launch(&mut self) -> Result<Launched> {
        let configuration = self.configure()?;
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let logged_before = log.metadata()?.len() as usize;
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.child = Some(child);

        let until = Instant::now() + START_LIMIT;
        while Instant::now() < until {
            if self.greets().await {
                return Ok(Launched::Ready);
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                self.child = None;
                let log = self.log();
                if log[logged_before.min(log.len())..].contains("address already in use") {
                    return Ok(Launched::PortTaken);
                }
                bail!("nats-server ended ({status}):\n{log}");
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("nats-server did not greet within {START_LIMIT:?}:\n{}", self.log())
    }

    /// Whether this very server, and not another on its port, answers.
    async fn greets(&self) -> bool {
        let greeted = timeout(Duration::from_secs(1), greeting(self.address())).await;
        matches!(greeted, Ok(Ok(info)) if info["server_name"] == self.name.as_str())
    }

    fn configure(&self) -> Result<PathBuf> {
        let path = self.dir.path().join("nats.conf");
        fs::write(&path, self.configuration())?;
        Ok(path)
    }

    fn configuration(&self) -> String {
        let mut text = format!("server_name: {:?}\nlisten: \"{}\"\n", self.name, self.address());
        if let Some(bytes) = self.options.max_payload {
            writeln!(text, "max_payload: {bytes}").expect("writing to a string cannot fail");
        }
        if self.options.jetstream {
            let limit = self.options.max_file_store.map(|bytes| format!("max_file_store: {bytes}"));
            let limit = limit.unwrap_or_default();
            writeln!(text, "jetstream {{ store_dir: {:?}\n{limit} }}", self.store_dir())
                .expect("writing to a string cannot fail");
        }
        text + &self.options.extra
    }

    fn log_path(&self) -> PathBuf {
        Path::new(self.dir.path()).join("nats.log")
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It must be gone before its folder is. A child that cannot be killed has already ended.
        if let Some(mut child) = self.child.take()
            && child.kill().is_ok()
        {
            child.wait().expect("a killed child of ours can be waited for");
        }
    }
}

enum Launched {
    Ready,
    PortTaken,
}

/// A port on which nobody listens now; different on every call, and in other processes most likely too.
///
/// # Errors
/// If all are taken.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = u32::from(PORTS.end - PORTS.start);
    for _ in 0..width {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        // A stride per process, so that processes started in a row do not try the same ports.
        let offset = (std::process::id().wrapping_mul(97) + step) % width;
        let port = PORTS.start + u16::try_from(offset).context("the range of ports fits u16")?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("every port of {PORTS:?} is taken")
}
