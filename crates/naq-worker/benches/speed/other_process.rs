//! The worker in another process: for latency across processes, memory, and idle CPU time.
//!
//! Invariant: a child of this program, killed with its owner. It says on its standard output, one number a line, how many
//! nanoseconds after the time in its arguments each `bench.stamp` job began.

use std::{fs, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use naq_models::{QueueName, RawJson, Verdict, WireFormat};
use naq_services::{JobContext, storage::SharedStorage};
use naq_worker::{
    ErasedHandler, HandlerRegistry, Scheduler, SchedulerOptions, Shutdown, Worker, WorkerBuilder, WorkerOptions,
    handler::HandlerFuture,
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{
    nats,
    plan::{Part, Served},
    sqlite,
};

/// Says when it began.
pub(crate) const STAMP: &str = "bench.stamp";
/// Does not end by itself.
pub(crate) const WAIT: &str = "bench.wait";
/// The queue of a runner.
pub(crate) const TICKS: &str = "ticks";
/// What a worker has that was told nothing.
const CONCURRENCY: usize = 10;
const PATIENCE: Duration = Duration::from_secs(120);

/// A clock that all processes of a host share, in nanoseconds.
pub(crate) fn shared_nanos() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// What the other process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum Role {
    /// It runs jobs and may lead the scheduler, as a worker does that was told nothing.
    Worker,
    /// It only runs jobs.
    Runner,
    /// It only schedules.
    Scheduler,
}

struct Stamp;

impl ErasedHandler for Stamp {
    fn kind(&self) -> &str {
        STAMP
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        let now = shared_nanos();
        let verdict = match cx.job().args.to::<[i64; 1]>() {
            Ok([sent]) => {
                println!("{}", now - sent);
                Verdict::Complete(RawJson::null())
            }
            Err(error) => Verdict::Cancel(error.to_string()),
        };
        Box::pin(std::future::ready(verdict))
    }
}

struct Wait;

impl ErasedHandler for Wait {
    fn kind(&self) -> &str {
        WAIT
    }

    fn call(&self, _: JobContext) -> HandlerFuture {
        Box::pin(std::future::pending())
    }
}

/// A worker with both handlers.
fn worker(role: Role, storage: SharedStorage) -> Result<WorkerBuilder> {
    let mut handlers = HandlerRegistry::default();
    handlers.insert(Arc::new(Stamp))?;
    handlers.insert(Arc::new(Wait))?;
    // Apart from what the worker of another measurement has left behind.
    let queue = if role == Role::Runner { QueueName::new(TICKS)? } else { QueueName::default() };
    Ok(Worker::builder(storage).queue(queue).concurrency(CONCURRENCY).handlers(handlers))
}

/// The child's side: runs until it is killed.
pub(crate) async fn serve(role: Role, served: &Served) -> Result<()> {
    let storage = match served {
        Served::Sqlite(path) => sqlite::open(path).await?,
        Served::Nats(url) => nats::open(url).await?,
    };
    if role == Role::Scheduler {
        let holder = format!("bench-{}", std::process::id());
        let scheduler = Scheduler::new(storage, holder, SchedulerOptions::default(), WireFormat::Json);
        return Ok(scheduler.run(&Shutdown::new()).await?);
    }
    let mut options = WorkerOptions::default();
    if role == Role::Runner {
        options.scheduler = None;
    }
    worker(role, storage)?.options(options).build()?.run(Shutdown::new()).await?;
    Ok(())
}

/// The owner's side.
pub(crate) struct OtherProcess {
    child: Child,
    stamps: Lines<BufReader<ChildStdout>>,
}

impl OtherProcess {
    pub(crate) fn start(role: Role, served: Served) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(serde_json::to_string(&Part::Serve(role, served))?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the worker's process")?;
        let stdout = child.stdout.take().context("the child has no output")?;
        Ok(Self { child, stamps: BufReader::new(stdout).lines() })
    }

    /// How long after its enqueue the next job began.
    pub(crate) async fn next_stamp(&mut self) -> Result<Duration> {
        let line = tokio::time::timeout(PATIENCE, self.stamps.next_line()).await.context("no job began in time")??;
        let nanos: i64 = line.context("the worker's process ended")?.parse()?;
        // A delayed job may begin a moment before its time by this host's clock: it is the store's that counts.
        Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("cannot end the worker's process")
    }

    fn proc(&self) -> Result<PathBuf> {
        let id = self.child.id().context("the worker's process ended")?;
        Ok(format!("/proc/{id}").into())
    }

    /// Resident memory, in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(self.proc()?.join("status"))?;
        let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) else {
            bail!("the system does not say how much memory a process has");
        };
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }

    /// Time that all its threads have run.
    pub(crate) fn ran(&self) -> Result<Duration> {
        let mut nanos = 0;
        for thread in fs::read_dir(self.proc()?.join("task"))? {
            // Absent if the thread has just ended.
            if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
                nanos += text.split_whitespace().next().context("schedstat is empty")?.parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(nanos))
    }
}
