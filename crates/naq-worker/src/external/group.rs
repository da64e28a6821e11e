//! [`Group`]: a child process and everything it starts.
//!
//! Invariant: the child leads a process group of its own. [`Group::wait`] and [`Group::end`] return when the group has
//! been ended; dropping a group before that kills it. A signal is only sent while the leader has not been reaped or
//! right after, before the kernel can have given its id to another group.

use std::{io, process::ExitStatus, process::Stdio, time::Duration};

use naq_config::ExecHandler;
use naq_services::{JobContext, trace_context};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::{Instant, sleep, timeout},
};

use super::program_name;
use crate::job_log::printable;

/// How long a group has between SIGTERM and SIGKILL. Well under the executor's own grace (10 s).
pub(super) const TERM_GRACE: Duration = Duration::from_secs(5);
/// How long a killed leader may take to be reaped before it is left to the runtime's reaper.
const REAP_LIMIT: Duration = Duration::from_secs(1);
/// How often a group without leader is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) struct Group {
    child: Child,
    /// `None` once the group has been ended.
    id: Option<Pid>,
}

pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Group {
    /// Starts a program, with the job's variables if it is for one job only.
    pub(super) fn spawn(program: &ExecHandler, kind: &str, job: Option<&JobContext>) -> io::Result<(Self, Pipes)> {
        let mut command = Command::new(program_name(program));
        command
            .args(&program.command[1..])
            .envs(program.env.iter().map(|(name, value)| (name, value.expose())))
            .env("NAQ_KIND", kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(cwd) = &program.cwd {
            command.current_dir(cwd);
        }
        if let Some(cx) = job {
            command
                .env("NAQ_JOB_ID", cx.id().as_str())
                .env("NAQ_QUEUE", cx.queue().as_str())
                .env("NAQ_ATTEMPT", cx.attempt().to_string())
                .env("NAQ_CORRELATION_ID", &*printable(cx.correlation_id()))
                .envs(trace_context::current().into_iter().map(|(name, text)| (name.to_ascii_uppercase(), text)));
        }
        let mut child = command.spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pipe = || io::Error::other("the child has no pipes");
        let pipes = Pipes {
            stdin: child.stdin.take().ok_or_else(pipe)?,
            stdout: child.stdout.take().ok_or_else(pipe)?,
            stderr: child.stderr.take().ok_or_else(pipe)?,
        };
        Ok((Self { child, id }, pipes))
    }

    /// Whether the leader still runs.
    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the leader; what it left running is killed.
    ///
    /// # Cancel safety
    /// Can be dropped and called again.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.kill();
        Ok(status)
    }

    /// Ends the group: SIGTERM, and SIGKILL for what is left after [`TERM_GRACE`].
    pub(super) async fn end(&mut self) {
        let Some(id) = self.id else { return };
        let deadline = Instant::now() + TERM_GRACE;
        self.signal(Signal::TERM);
        // A shell dies at once and leaves the program it ran behind, which may want the grace more than the shell.
        if timeout(TERM_GRACE, self.child.wait()).await.is_ok() {
            while Instant::now() < deadline && test_kill_process_group(id).is_ok() {
                sleep(LOOK_EVERY).await;
            }
        }
        self.kill();
        if timeout(REAP_LIMIT, self.child.wait()).await.is_err() {
            tracing::warn!(process = id.as_raw_nonzero(), "a killed process has not ended; left to the reaper");
        }
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.id = None;
    }

    fn signal(&self, signal: Signal) {
        let Some(id) = self.id else { return };
        match kill_process_group(id, signal) {
            // Nothing of it is left.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::warn!(process = id.as_raw_nonzero(), %error, "cannot signal a process group"),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
