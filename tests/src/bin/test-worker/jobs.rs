//! The jobs of the test worker. Each tells in a run log what it did, so that tests see runs and not only results.
//!
//! A line of a run log is `<what> <job id> <attempt> <pid> <priority>`, appended in one write: `start` before anything
//! else, `end` before returning a value, `stop` where a handler noticed that it shall stop.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use naq::{CancellationToken, Failure, JobContext, Outcome, State};

/// How often a job looks whether the file that it waits for is there.
const LOOK: Duration = Duration::from_millis(10);

fn line(what: &str, cx: &JobContext) -> String {
    format!("{what} {} {} {} {}\n", cx.id(), cx.attempt(), std::process::id(), cx.job().priority.get())
}

/// Appends a line that survives the death of this process and of this machine.
fn log(file: &Path, what: &str, cx: &JobContext) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(file)?;
    file.write_all(line(what, cx).as_bytes())?;
    file.sync_data()
}

/// Sleeps, and waits for a file to appear; stops when told to.
#[naq::job(kind = "t.log_sleep")]
async fn log_sleep(
    file: PathBuf,
    ms: Option<u64>,
    until: Option<PathBuf>,
    cx: JobContext,
    stop: CancellationToken,
) -> io::Result<Outcome<String>> {
    log(&file, "start", &cx)?;
    let wait = async {
        tokio::time::sleep(Duration::from_millis(ms.unwrap_or(0))).await;
        while until.as_ref().is_some_and(|until| !until.exists()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = wait => {
            log(&file, "end", &cx)?;
            Ok(Outcome::Complete(cx.worker_id().to_owned()))
        }
        () = stop.cancelled() => {
            log(&file, "stop", &cx)?;
            Ok(Outcome::Retry { after: None, error: Failure::new("interrupted", "told to stop") })
        }
    }
}

/// Says that it ran, without waiting for the disk: for very many jobs.
#[naq::job(kind = "t.count")]
async fn count(file: PathBuf, cx: JobContext) -> io::Result<u32> {
    File::options().create(true).append(true).open(file)?.write_all(line("end", &cx).as_bytes())?;
    Ok(cx.attempt())
}

/// Keeps a thread of the runtime busy and never awaits.
#[naq::job(kind = "t.burn")]
async fn burn(file: PathBuf, ms: u64, cx: JobContext) -> io::Result<()> {
    log(&file, "start", &cx)?;
    let (begun, mut spins) = (Instant::now(), 0u64);
    while begun.elapsed() < Duration::from_millis(ms) {
        spins = std::hint::black_box(spins + 1);
    }
    log(&file, "end", &cx)
}

/// Takes its whole process with it, once a file is there.
#[naq::job(kind = "t.poison")]
async fn poison(file: PathBuf, until: PathBuf, cx: JobContext) -> io::Result<()> {
    log(&file, "start", &cx)?;
    while !until.exists() {
        tokio::time::sleep(LOOK).await;
    }
    std::process::abort()
}

/// Awaits, but never looks at its token.
#[naq::job(kind = "t.ignore_cancel")]
async fn ignore_cancel(file: PathBuf, ms: u64, cx: JobContext) -> io::Result<()> {
    log(&file, "start", &cx)?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    log(&file, "end", &cx)
}

/// Blocks its thread and never looks at its token: nobody can stop it but the end of the process.
#[naq::job(kind = "t.block")]
fn block(file: PathBuf, ms: u64, cx: JobContext) -> io::Result<()> {
    log(&file, "start", &cx)?;
    std::thread::sleep(Duration::from_millis(ms));
    log(&file, "end", &cx)
}

/// Fails on its first `times` attempts, then returns the attempt that worked.
#[naq::job(kind = "t.fail")]
async fn fail(times: u32, cx: JobContext) -> Result<u32, Failure> {
    if cx.attempt() <= times {
        Err(Failure::new("boom", format!("attempt {}", cx.attempt())))
    } else {
        Ok(cx.attempt())
    }
}

/// Fails for good in its first life, works in the next.
#[naq::job(kind = "t.second_life")]
async fn second_life(cx: JobContext) -> Outcome<&'static str> {
    if cx.job().generation == 0 {
        Outcome::Fail(Failure::new("boom", "not in the first life"))
    } else {
        Outcome::Complete("alive")
    }
}

/// Snoozes on its first run.
#[naq::job(kind = "t.snooze")]
async fn snooze(ms: u64, cx: JobContext) -> Outcome<u32> {
    if cx.job().run == 1 { Outcome::Snooze(Duration::from_millis(ms)) } else { Outcome::Complete(cx.attempt()) }
}

/// Returns a text of so many bytes.
#[naq::job(kind = "t.big_result")]
async fn big_result(bytes: usize) -> String {
    "x".repeat(bytes)
}

/// Panics.
#[naq::job(kind = "t.panic")]
async fn panic(message: String) {
    panic!("{message}")
}

/// Logs what it is told to, and fails on its first `times` attempts.
#[naq::job(kind = "t.say")]
async fn say(text: String, times: Option<u32>, cx: JobContext) -> Result<(), Failure> {
    tracing::info!("{text}");
    if cx.attempt() <= times.unwrap_or(0) { Err(Failure::new("boom", "not yet")) } else { Ok(()) }
}

/// Logs on a blocking thread, and enqueues a child that logs too.
#[naq::job(kind = "t.say_and_pass_on")]
fn say_and_pass_on(text: String, child: String, cx: JobContext) -> Result<(), Failure> {
    tracing::info!("{text}");
    tokio::runtime::Handle::current().block_on(cx.enqueue(say::job(text, None).job_id(child)))?;
    Ok(())
}

/// What the jobs of one process share: how many have counted themselves.
#[derive(Default)]
pub(crate) struct Runs(AtomicU32);

impl Runs {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Counts itself among the runs of its process.
#[naq::job(kind = "t.run")]
async fn run(runs: State<Runs>) -> u32 {
    runs.next()
}

/// The same without the attribute, for a handler that is given by hand; its argument is what it adds.
pub(crate) async fn run_by_hand((more,): (u32,), runs: State<Runs>) -> u32 {
    runs.next() + more
}
