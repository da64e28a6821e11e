//! The `naq` binary as a child process: its own home folder, none of the caller's naq variables, output kept in files.
//!
//! Output goes to files and not to pipes, so that no process ever blocks on a test that does not read. A process that is
//! still alive when dropped is killed; what it started itself is its own affair, as it is in production.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::eventually;
use crate::programs::{naq_program, naq_variables};
use crate::terminal::Terminal;

/// How to start the binary: a working folder and additional environment.
#[derive(Debug, Clone)]
pub struct NaqBinary {
    program: PathBuf,
    dir: PathBuf,
    env: Vec<(String, String)>,
}

impl NaqBinary {
    /// The binary under test, working in `dir` and with its home, state and configuration folders below it.
    pub fn in_dir(dir: &Path) -> Result<NaqBinary> {
        Ok(NaqBinary::at(naq_program()?, dir))
    }

    /// Another program in place of the binary under test, for example one that a test built from a crate of its own.
    pub fn at(program: PathBuf, dir: &Path) -> NaqBinary {
        NaqBinary { program, dir: dir.to_owned(), env: Vec::new() }
    }

    /// Sets a variable for every process started from now on.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> NaqBinary {
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sets some variables for every process started from now on.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> NaqBinary {
        self.env.extend(variables);
        self
    }

    /// Starts it, with an empty standard input.
    pub fn spawn<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<NaqProcess> {
        self.spawn_with(args, Stdio::null())
    }

    /// Starts it with `input` on standard input.
    pub fn spawn_with_input<A: AsRef<OsStr>>(&self, args: &[A], input: &[u8]) -> Result<NaqProcess> {
        let path = self.output_path("stdin")?;
        fs::write(&path, input)?;
        self.spawn_with(args, File::open(&path)?.into())
    }

    /// Starts it and waits for its end, at most `limit`.
    pub async fn run<A: AsRef<OsStr>>(&self, args: &[A], limit: Duration) -> Result<Finished> {
        self.spawn(args)?.wait(limit).await
    }

    /// Starts it with its standard error going to `stderr`, and nothing of that in [`NaqProcess::stderr`].
    pub fn spawn_with_stderr<A: AsRef<OsStr>>(&self, args: &[A], stderr: impl Into<Stdio>) -> Result<NaqProcess> {
        self.spawn_to(args, Stdio::null(), &self.output_path("stderr")?, stderr.into())
    }

    /// What a child finds in its environment beside what it inherits.
    fn variables(&self) -> Vec<(String, OsString)> {
        let home = [("HOME".to_owned(), self.dir.clone().into_os_string())].into_iter();
        let folders = [("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state"), ("XDG_DATA_HOME", "data")];
        let folders = folders.map(|(name, folder)| (name.to_owned(), self.dir.join(folder).into_os_string()));
        let chosen = self.env.iter().map(|(name, value)| (name.clone(), OsString::from(value)));
        home.chain(folders).chain(chosen).collect()
    }

    /// Starts it on a terminal of its own, of so many columns and rows, which it finds as its controlling terminal.
    pub fn open_terminal<A: AsRef<OsStr>>(&self, args: &[A], size: (u16, u16)) -> Result<Terminal> {
        let mut command = pty_process::Command::new(&self.program);
        for name in naq_variables() {
            command = command.env_remove(name);
        }
        command = command.args(args).current_dir(&self.dir).envs(self.variables());
        Terminal::start(command.env("TERM", "xterm-256color").kill_on_drop(true), size)
    }

    fn spawn_with<A: AsRef<OsStr>>(&self, args: &[A], stdin: Stdio) -> Result<NaqProcess> {
        let path = self.output_path("stderr")?;
        self.spawn_to(args, stdin, &path, File::create(&path)?.into())
    }

    fn spawn_to<A: AsRef<OsStr>>(&self, args: &[A], stdin: Stdio, path: &Path, stderr: Stdio) -> Result<NaqProcess> {
        let stdout = self.output_path("stdout")?;
        let mut command = Command::new(&self.program);
        for name in naq_variables() {
            command.env_remove(name);
        }
        let child = command
            .args(args)
            .current_dir(&self.dir)
            .envs(self.variables())
            .stdin(stdin)
            .stdout(File::create(&stdout)?)
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).context("the child has no pid")?;
        Ok(NaqProcess { child, pid, line: words.join(" "), stdout, stderr: path.to_owned() })
    }

    /// A file that no other process of this test writes to.
    fn output_path(&self, stream: &str) -> Result<PathBuf> {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let folder = self.dir.join("output");
        fs::create_dir_all(&folder)?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        Ok(folder.join(format!("{number}.{stream}")))
    }
}

/// A started process.
#[derive(Debug)]
pub struct NaqProcess {
    child: Child,
    pid: Pid,
    line: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl NaqProcess {
    /// Its process id; still its own until [`NaqProcess::wait`] or [`NaqProcess::kill`] has returned.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Sends a signal; an error if the process was already waited for.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Once waited for, the id may belong to someone else.
        if self.child.id().is_none() {
            bail!("`naq {}` has ended", self.line);
        }
        kill_process(self.pid, signal).with_context(|| format!("cannot signal `naq {}`", self.line))
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill `naq {}`", self.line))
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns once it has ended. Cancel safe.
    pub async fn ended(&mut self) -> Result<()> {
        self.child.wait().await.map(drop).with_context(|| format!("cannot wait for `naq {}`", self.line))
    }

    /// Waits for its end; an error that holds its output if that takes longer than `limit`, and then it is killed.
    pub async fn wait(mut self, limit: Duration) -> Result<Finished> {
        let Ok(status) = tokio::time::timeout(limit, self.child.wait()).await else {
            self.kill().await?;
            bail!(
                "`naq {}` did not end within {limit:?}\nstdout:\n{}\nstderr:\n{}",
                self.line,
                self.stdout(),
                self.stderr()
            );
        };
        let status = status.with_context(|| format!("cannot wait for `naq {}`", self.line))?;
        Ok(Finished { status, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Waits until what it wrote to standard error contains `text`; an error if it ends or `limit` passes before.
    pub async fn wait_for_stderr(&mut self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("{text:?} on stderr of `naq {}`", self.line);
        let seen = eventually(limit, &what, async || {
            let ended = self.has_ended();
            if read(&self.stderr).contains(text) { Some(true) } else { ended.then_some(false) }
        });
        match seen.await.with_context(|| format!("stderr:\n{}", self.stderr()))? {
            true => Ok(()),
            false => bail!("`naq {}` ended before {text:?}; stderr:\n{}", self.line, self.stderr()),
        }
    }

    /// What it has written to standard output so far; bytes that are not UTF-8 are replaced.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to standard error so far; bytes that are not UTF-8 are replaced.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }
}

/// How a process ended and what it had written.
#[derive(Debug)]
pub struct Finished {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// All of its standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// All of its standard error; bytes that are not UTF-8 are replaced.
    pub stderr: String,
}

impl Finished {
    /// The exit code; `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Its standard output as JSON; an error that holds all output if it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("stdout is not JSON:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }
}

fn read(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}
