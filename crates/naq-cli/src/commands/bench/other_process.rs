//! A worker in another process: this very program, told by a hidden flag what to do.
//!
//! Invariant: the child ends when its owner does, however that ends: its standard input is a pipe that nobody writes to, and it
//! stops when that is closed. It reads the same configuration from the same sources and serves one ground. It prints one line
//! at each start of a handler.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    thread,
    time::Duration,
};

use naq_services::JobContext;
use naq_worker::{Shutdown, handler::HandlerFuture};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::{
    Bench, Result,
    ground::{Ground, Place, is_ground, queue},
    work::{Called, completed},
};
use crate::{
    error::{CliError, with_sources},
    output,
    session::Session,
};

/// Why a question cannot be asked of a store that only one process can open.
pub(super) const NONE: &str = "a store in memory is in one process, and this needs a second one";
/// Why a process cannot be looked at.
pub(super) const NOT_SEEN: &str = "this system has no /proc that tells of processes";

/// What the other process does with its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// It completes them.
    Run,
    /// It begins them and never ends.
    Hold,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Orders {
    ground: String,
    role: Role,
    slots: usize,
}

/// The child's side: runs until its owner is gone.
pub(super) async fn serve(session: &Session, place: &Place, orders: &str) -> Result<()> {
    let wrong = |what: String| CliError::usage(format!("--as-worker is for `naq bench` itself: {what}"));
    let Orders { ground, role, slots } = serde_json::from_str(orders).map_err(|e| wrong(e.to_string()))?;
    if !is_ground(&ground) {
        return Err(wrong(format!("{ground:?} is not a store of it")));
    }
    let services = place.services(session, &ground);
    let outcome = run(Ground::open(services.clone(), ground).await, role, slots).await;
    services.close().await;
    outcome
}

async fn run(ground: Result<Ground>, role: Role, slots: usize) -> Result<()> {
    let handler = Called(move |_: JobContext| -> HandlerFuture {
        // Nobody is left to read it if it cannot be written.
        let _closed = output::raw("begun");
        match role {
            Role::Run => completed(),
            Role::Hold => Box::pin(std::future::pending()),
        }
    });
    let worker = ground?.worker(slots, &[queue()], Arc::new(handler)).await?;
    let shutdown = Shutdown::new();
    let owner_gone = shutdown.clone();
    let watch = move || {
        // The end of the input and an error mean the same.
        let _ended = io::stdin().lock().read_to_end(&mut Vec::new());
        owner_gone.request_now();
    };
    thread::Builder::new()
        .name("naq-bench-owner".to_owned())
        .spawn(watch)
        .map_err(|e| CliError::failed(format!("no thread: {e}")))?;
    worker.run(shutdown).await.map_err(|e| CliError::failed(with_sources(&e)))?;
    Ok(())
}

/// The owner's side. Dropped, the child is killed.
pub(super) struct OtherProcess {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl OtherProcess {
    pub(super) fn start(bench: &Bench<'_>, ground: &Ground, role: Role, slots: usize) -> Result<Self> {
        let cannot = |what: String| CliError::failed(format!("cannot start a worker's process: {what}"));
        let orders = Orders { ground: ground.name.clone(), role, slots };
        let orders = serde_json::to_string(&orders).map_err(|e| cannot(e.to_string()))?;
        let mut command = Command::new(std::env::current_exe().map_err(|e| cannot(e.to_string()))?);
        bench.session.repeat_choices(command.as_std_mut());
        let mut child = command
            .args(["bench", "--as-worker", &orders])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| cannot(e.to_string()))?;
        let stdout = child.stdout.take().ok_or_else(|| cannot("it has no output".to_owned()))?;
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }

    /// Returns when the next handler has begun.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn begun(&mut self) -> Result<()> {
        match self.lines.next_line().await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(CliError::failed("the worker's process ended by itself")),
            Err(error) => Err(CliError::failed(format!("the worker's process cannot be read: {error}"))),
        }
    }

    /// Kills it and returns when it is gone.
    pub(super) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.map_err(|e| CliError::failed(format!("cannot end the worker's process: {e}")))
    }

    /// Resident memory, in MiB.
    pub(super) fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(self.proc()?.join("status")).map_err(|_| unseen())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or_else(unseen)?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().map_err(|_| unseen())?;
        Ok(kib / 1024.0)
    }

    /// Time that all its threads have run.
    pub(super) fn ran(&self) -> Result<Duration> {
        let mut nanos: u64 = 0;
        for thread in fs::read_dir(self.proc()?.join("task")).map_err(|_| unseen())? {
            // Absent if the thread has just ended.
            if let Ok(text) = fs::read_to_string(thread.map_err(|_| unseen())?.path().join("schedstat")) {
                let ran = text.split_whitespace().next().and_then(|ran| ran.parse::<u64>().ok());
                nanos += ran.ok_or_else(unseen)?;
            }
        }
        Ok(Duration::from_nanos(nanos))
    }

    fn proc(&self) -> Result<PathBuf> {
        let id = self.child.id().ok_or_else(|| CliError::failed("the worker's process ended by itself"))?;
        Ok(format!("/proc/{id}").into())
    }
}

/// Whether the system tells how much memory and time a process uses.
pub(super) fn is_observable() -> bool {
    fs::exists("/proc/self/task").unwrap_or(false)
}

fn unseen() -> CliError {
    CliError::failed("the system does not say what the worker's process uses")
}
