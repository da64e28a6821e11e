//! `jsonl`: long-lived processes that answer one JSON line to one JSON line.
//!
//! Invariant: a process has one job at a time and is trusted only as long as it answers exactly that job. One that
//! crashes, answers something else, says too much, or is cancelled is ended with its group and replaced when the next
//! job needs it. A program that dies before it has answered anything is started again with a growing pause.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use naq_config::ExecHandler;
use naq_models::{JobError, Verdict};
use naq_services::{JobContext, registration::HandlerFuture};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{ChildStdin, ChildStdout},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::Span;

use super::{
    ExternalErrorReason, MAX_PROCESSES, check_program,
    group::Group,
    message::{Line, Reply, request},
    output::{Stderr, error, interrupted, too_large},
    program_name,
};
use crate::handler::{CloseFuture, ErasedHandler};

/// The pause after the first death without an answer; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// What a reply may have around its result, in bytes.
const REPLY_OVERHEAD: usize = 1024;
/// How long an idle process may take to end by itself when its stdin is closed.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// How long the last words of a process that ended are waited for, and those of a job taken for its own.
const LAST_WORDS: Duration = Duration::from_millis(500);

pub(super) fn handler(
    kind: &str,
    program: ExecHandler,
    processes: u32,
) -> Result<Arc<dyn ErasedHandler>, ExternalErrorReason> {
    check_program(&program)?;
    if processes == 0 || processes > MAX_PROCESSES {
        return Err(ExternalErrorReason::Processes(processes));
    }
    let pool = Pool {
        kind: kind.to_owned(),
        program,
        slots: Semaphore::new(processes as usize),
        idle: Mutex::default(),
        health: Mutex::default(),
    };
    Ok(Arc::new(Jsonl { pool: Arc::new(pool) }))
}

struct Jsonl {
    pool: Arc<Pool>,
}

impl ErasedHandler for Jsonl {
    fn kind(&self) -> &str {
        &self.pool.kind
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        let pool = Arc::clone(&self.pool);
        Box::pin(async move { pool.run(&cx).await })
    }

    fn close(&self) -> CloseFuture {
        let idle = std::mem::take(&mut *lock(&self.pool.idle));
        Box::pin(async move {
            futures_util::future::join_all(idle.into_iter().map(Process::close)).await;
        })
    }
}

struct Pool {
    kind: String,
    program: ExecHandler,
    /// One permit per process that may exist; held while it runs a job.
    slots: Semaphore,
    idle: Mutex<VecDeque<Process>>,
    health: Mutex<Health>,
}

/// Deaths without an answer, one after the other.
#[derive(Default)]
struct Health {
    deaths: u32,
    not_before: Option<Instant>,
}

/// Why a process cannot be trusted any more.
enum Broken {
    Died(io::Error),
    Garbage(String),
    TooLarge,
}

impl Pool {
    async fn run(&self, cx: &JobContext) -> Verdict {
        let name = program_name(&self.program);
        let ready = tokio::select! {
            ready = self.ready_process() => ready,
            () = cx.cancelled() => return interrupted(name),
        };
        let (_slot, mut process) = match ready {
            Ok(ready) => ready,
            Err(e) => return Verdict::Error(error("spawn", format!("cannot start {name}: {e}"))),
        };
        let max = cx.storage().info().max_body;
        process.begin();
        let answer = tokio::select! {
            answer = process.exchange(cx, max + REPLY_OVERHEAD) => answer,
            () = cx.cancelled() => {
                process.end().await;
                return interrupted(name);
            }
        };
        match answer {
            Ok(reply) => {
                process.served = true;
                *lock(&self.health) = Health::default();
                process.begin_idle();
                lock(&self.idle).push_back(process);
                reply.into_verdict()
            }
            Err(broken) => {
                if !process.served {
                    self.died_early();
                }
                process.end().await;
                self.judge(broken, &process, max)
            }
        }
    }

    /// A slot and a process for it.
    async fn ready_process(&self) -> io::Result<(tokio::sync::SemaphorePermit<'_>, Process)> {
        let slot = self.slots.acquire().await.map_err(io::Error::other)?;
        loop {
            let idle = lock(&self.idle).pop_back();
            let Some(mut process) = idle else { break };
            if process.is_ready() {
                return Ok((slot, process));
            }
            // It ended, or said something, while it had nothing to do; that costs no job an attempt.
        }
        let not_before = lock(&self.health).not_before;
        if let Some(at) = not_before {
            sleep_until(at).await;
        }
        match Process::start(&self.program, &self.kind) {
            Ok(process) => Ok((slot, process)),
            Err(e) => {
                self.died_early();
                Err(e)
            }
        }
    }

    fn died_early(&self) {
        let mut health = lock(&self.health);
        let pause = FIRST_PAUSE.saturating_mul(1 << health.deaths.min(16)).min(MAX_PAUSE);
        health.deaths = health.deaths.saturating_add(1);
        health.not_before = Some(Instant::now() + pause);
    }

    fn judge(&self, broken: Broken, process: &Process, max: usize) -> Verdict {
        let name = program_name(&self.program);
        let told: JobError = match broken {
            Broken::TooLarge => return too_large(name, max),
            Broken::Died(e) => error("process_died", format!("{name} ended before it answered: {e}")),
            Broken::Garbage(what) => error("protocol", format!("{name} answered {what}")),
        };
        let tail = lock(&process.said).stderr.tail();
        Verdict::Error(match tail {
            Some(tail) => told.with_backtrace(tail),
            None => told,
        })
    }
}

/// What a process said on stderr, and for which job.
#[derive(Default)]
struct Said {
    stderr: Stderr,
    /// The span of the job that it runs, or ran last.
    job: Option<Span>,
    idle_since: Option<Instant>,
}

impl Said {
    /// Whose words those are that come now. What was said before an answer may be read after it.
    fn job(&self) -> Option<Span> {
        let is_late = self.idle_since.is_some_and(|since| since.elapsed() > LAST_WORDS);
        if is_late { None } else { self.job.clone() }
    }
}

struct Process {
    group: Group,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    said: Arc<Mutex<Said>>,
    /// Reads stderr; ends with the process.
    listener: JoinSet<()>,
    /// Whether it has answered a job.
    served: bool,
}

impl Process {
    fn start(program: &ExecHandler, kind: &str) -> io::Result<Self> {
        let (group, pipes) = Group::spawn(program, kind, None)?;
        let said = Arc::<Mutex<Said>>::default();
        let mut listener = JoinSet::new();
        listener.spawn(listen(kind.to_owned(), pipes.stderr, Arc::clone(&said)));
        let stdout = BufReader::new(pipes.stdout);
        Ok(Self { group, stdin: Some(pipes.stdin), stdout, said, listener, served: false })
    }

    /// What it says from now on belongs to the job in whose span this is called.
    fn begin(&self) {
        let mut said = lock(&self.said);
        said.stderr.forget();
        (said.job, said.idle_since) = (Some(Span::current()), None);
    }

    /// Whether it runs and has said nothing since its last answer.
    fn is_ready(&mut self) -> bool {
        self.stdout.fill_buf().now_or_never().is_none() && self.group.is_running()
    }

    fn begin_idle(&self) {
        lock(&self.said).idle_since = Some(Instant::now());
    }

    async fn exchange(&mut self, cx: &JobContext, max: usize) -> Result<Reply, Broken> {
        let mut line = request(cx);
        line.push(b'\n');
        let stdin = self.stdin.as_mut().expect("stdin is closed only by `close`, which consumes the process");
        stdin.write_all(&line).await.map_err(Broken::Died)?;
        loop {
            let line = read_line(&mut self.stdout, max).await?;
            let said = Line::parse(&line).map_err(Broken::Garbage)?;
            let (Line::Progress { id, .. } | Line::Reply(Reply { id, .. })) = &said;
            match id.as_deref() {
                Some(id) if id == cx.id().as_str() => {}
                Some(other) => return Err(Broken::Garbage(format!("job {other:?} instead of its own"))),
                None => return Err(Broken::Garbage("without the job's id".into())),
            }
            match said {
                Line::Progress { fraction, message, .. } => cx.progress(fraction, message),
                Line::Reply(reply) => return Ok(reply),
            }
        }
    }

    /// Ends it and collects its last words.
    async fn end(&mut self) {
        self.group.end().await;
        // A process that left the group may hold the pipe open; the words so far must do then.
        let _all_said = timeout(LAST_WORDS, self.listener.join_next()).await;
    }

    /// Ends an idle process: by closing its stdin, if it takes the hint.
    async fn close(mut self) {
        self.stdin = None;
        if timeout(CLOSE_GRACE, self.group.wait()).await.is_err() {
            self.group.end().await;
        }
    }
}

async fn listen(kind: String, mut stream: tokio::process::ChildStderr, said: Arc<Mutex<Said>>) {
    use tokio::io::AsyncReadExt as _;
    let mut chunk = vec![0; 4096];
    loop {
        let read = match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => 0,
            Ok(n) => n,
        };
        let mut said = lock(&said);
        let job = said.job();
        let log = |line: &str| match &job {
            Some(span) => tracing::info!(parent: span, "stderr: {line}"),
            None => tracing::info!(kind, "stderr: {line}"),
        };
        if read == 0 {
            said.stderr.flush(&log);
            return;
        }
        said.stderr.take(&chunk[..read], &log);
    }
}

async fn read_line(stdout: &mut BufReader<ChildStdout>, max: usize) -> Result<Vec<u8>, Broken> {
    let mut line = Vec::new();
    loop {
        let available = stdout.fill_buf().await.map_err(Broken::Died)?;
        if available.is_empty() {
            return Err(Broken::Died(io::ErrorKind::UnexpectedEof.into()));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        line.extend_from_slice(&available[..taken]);
        stdout.consume(taken);
        if line.len() > max {
            return Err(Broken::TooLarge);
        }
        if end.is_some() {
            return Ok(line);
        }
    }
}

/// What a panic elsewhere left behind is still a list of processes and counts.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
