//! `exec`: one process per job.
//!
//! Invariant: the process gets its arguments as one line on stdin, whether or not it reads them; its exit status decides
//! (0 completes, 75 retries, 65 fails for good, anything else is an error under the job's policy), and what it wrote to
//! stderr is logged (in the span of the job) and kept with an error.

use std::{io, os::unix::process::ExitStatusExt as _, process::ExitStatus, sync::Arc};

use naq_config::ExecHandler;
use naq_models::{JobError, Verdict};
use naq_services::{CancellationToken, JobContext, registration::HandlerFuture};
use tokio::{io::AsyncWriteExt as _, process::ChildStdin};

use super::{
    ExternalErrorReason, check_program,
    group::{Group, Pipes},
    message::compact,
    output::{Stderr, TooLarge, completed, error, interrupted, read_bounded, too_large},
    program_name,
};
use crate::handler::ErasedHandler;

/// EX_TEMPFAIL of sysexits.h: try again.
const TEMPFAIL: i32 = 75;
/// EX_DATAERR of sysexits.h: the arguments are no good and never will be.
const DATAERR: i32 = 65;

pub(super) fn handler(kind: &str, program: ExecHandler) -> Result<Arc<dyn ErasedHandler>, ExternalErrorReason> {
    check_program(&program)?;
    Ok(Arc::new(Exec { inner: Arc::new(Inner { kind: kind.to_owned(), program }) }))
}

struct Exec {
    inner: Arc<Inner>,
}

struct Inner {
    kind: String,
    program: ExecHandler,
}

impl ErasedHandler for Exec {
    fn kind(&self) -> &str {
        &self.inner.kind
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.run(&cx).await })
    }
}

enum Stop {
    TooLarge,
    Wait(io::Error),
}

impl Inner {
    async fn run(&self, cx: &JobContext) -> Verdict {
        let name = program_name(&self.program);
        let (mut group, pipes) = match Group::spawn(&self.program, &self.kind, Some(cx)) {
            Ok(spawned) => spawned,
            Err(e) => return Verdict::Error(error("spawn", format!("cannot start {name}: {e}"))),
        };
        let max = cx.storage().info().max_body;
        let mut stderr = Stderr::default();
        match supervise(cx, &mut group, pipes, max, &mut stderr).await {
            Ok((Some(status), output)) => judge(name, status, &output, &stderr),
            Ok((None, _)) => interrupted(name),
            Err(Stop::TooLarge) => {
                group.end().await;
                too_large(name, max)
            }
            Err(Stop::Wait(e)) => {
                group.end().await;
                Verdict::Error(error("wait", format!("cannot wait for {name}: {e}")))
            }
        }
    }
}

/// Waits for the process, or ends it when the job is to stop; no status then. Its pipes are served all the while: a
/// program that is told to end may have something to say, and would be killed by SIGPIPE for saying it.
async fn supervise(
    cx: &JobContext,
    group: &mut Group,
    pipes: Pipes,
    max: usize,
    stderr: &mut Stderr,
) -> Result<(Option<ExitStatus>, Vec<u8>), Stop> {
    let ended = CancellationToken::new();
    let log = |line: &str| tracing::info!("stderr: {line}");
    let (status, output, (), ()) = tokio::try_join!(
        async {
            let status = tokio::select! {
                status = group.wait() => status.map(Some).map_err(Stop::Wait),
                () = cx.cancelled() => {
                    group.end().await;
                    Ok(None)
                }
            };
            ended.cancel();
            status
        },
        async { read_bounded(pipes.stdout, max, &ended).await.map_err(|TooLarge| Stop::TooLarge) },
        async {
            stderr.follow(pipes.stderr, &ended, &log).await;
            Ok(())
        },
        async {
            feed(pipes.stdin, cx, &ended).await;
            Ok(())
        },
    )?;
    Ok((status, output))
}

/// Writes the arguments. A program may end without reading them; then there is nobody to write to, and no harm done.
async fn feed(mut stdin: ChildStdin, cx: &JobContext, ended: &CancellationToken) {
    let mut line = compact(cx.job().args.get());
    line.push(b'\n');
    tokio::select! {
        written = stdin.write_all(&line) => match written {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => tracing::warn!(%error, "cannot write the arguments"),
        },
        () = ended.cancelled() => {}
    }
}

fn judge(name: &str, status: ExitStatus, output: &[u8], stderr: &Stderr) -> Verdict {
    let tail = stderr.tail();
    let described = |error_type: String, what: String| {
        let last = tail.as_deref().and_then(|tail| tail.lines().rev().find(|line| !line.trim().is_empty()));
        let message = match last {
            Some(line) => format!("{name} {what}: {}", line.trim()),
            None => format!("{name} {what}"),
        };
        let error: JobError = error(error_type, message);
        match &tail {
            Some(tail) => error.with_backtrace(tail.as_str()),
            None => error,
        }
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => completed(output),
        (Some(code), _) => {
            let error = described(format!("exit_{code}"), format!("exited with status {code}"));
            match code {
                TEMPFAIL => Verdict::Retry { after: None, error },
                DATAERR => Verdict::Fail(error.permanent()),
                _ => Verdict::Error(error),
            }
        }
        (None, Some(signal)) => {
            Verdict::Error(described(format!("signal_{signal}"), format!("was killed by signal {signal}")))
        }
        (None, None) => Verdict::Error(described("exit".into(), format!("ended: {status}"))),
    }
}
