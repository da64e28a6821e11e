//! A pseudo-terminal with a program on it: keys go in, the screen that a person would see comes out.
//!
//! What the program writes is read only while somebody waits for the screen. The program is killed when this is dropped.

use std::{num::NonZero, process::ExitStatus, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use pty_process::{Pty, Size};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, tcgetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::time::timeout;

fn cells(rows: u16, columns: u16) -> Result<(NonZero<u16>, NonZero<u16>)> {
    NonZero::new(rows).zip(NonZero::new(columns)).context("a terminal without a cell")
}

/// A program on a terminal.
pub struct Terminal {
    child: Child,
    pty: Pty,
    screen: vt100::Parser,
}

impl Terminal {
    pub(crate) fn start(command: pty_process::Command, (columns, rows): (u16, u16)) -> Result<Terminal> {
        let (pty, program_side) = pty_process::open().context("cannot open a terminal")?;
        pty.resize(Size::new(rows, columns)).context("cannot give a terminal its size")?;
        let child = command.spawn(program_side).context("cannot start a program on a terminal")?;
        let (height, width) = cells(rows, columns)?;
        Ok(Terminal { child, pty, screen: vt100::Parser::new(height, width, 0) })
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Types keys.
    pub async fn type_keys(&mut self, keys: &str) -> Result<()> {
        self.pty.write_all(keys.as_bytes()).await.with_context(|| format!("cannot type {keys:?}"))
    }

    /// Makes the window larger or smaller.
    pub fn resize(&mut self, (columns, rows): (u16, u16)) -> Result<()> {
        let (height, width) = cells(rows, columns)?;
        self.screen.screen_mut().set_size(height, width);
        self.pty.resize(Size::new(rows, columns)).context("cannot resize a terminal")
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().and_then(|id| Pid::from_raw(id.cast_signed())).context("the program has ended")?;
        kill_process(pid, signal).context("cannot signal the program on a terminal")
    }

    /// What the screen shows, as text.
    pub fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Waits until the screen is as `is_so` wants it; an error that holds the screen if `limit` passes or the program ends.
    pub async fn wait_until(&mut self, limit: Duration, what: &str, is_so: impl Fn(&str) -> bool) -> Result<()> {
        let reading = async {
            while !is_so(&self.text()) {
                if !self.read().await? {
                    bail!("the program has ended");
                }
            }
            Ok(())
        };
        let seen = timeout(limit, reading).await.with_context(|| format!("not within {limit:?}"));
        seen.and_then(|seen| seen).with_context(|| format!("waited until {what}; the screen:\n{}", self.text()))
    }

    /// Waits until the screen shows a text.
    pub async fn shows(&mut self, limit: Duration, text: &str) -> Result<()> {
        self.wait_until(limit, &format!("the screen shows {text:?}"), |screen| screen.contains(text)).await
    }

    /// Closes the terminal, as one does its window, and waits for the end of the program.
    pub async fn hang_up(self, limit: Duration) -> Result<ExitStatus> {
        let Terminal { mut child, pty, .. } = self;
        drop(pty);
        let status = timeout(limit, child.wait()).await.context("it does not end")?;
        status.context("cannot wait for a program whose terminal is gone")
    }

    /// Takes in what the program has written; `false` if it has ended.
    async fn read(&mut self) -> Result<bool> {
        let mut bytes = [0; 4096];
        match self.pty.read(&mut bytes).await {
            Ok(0) => Ok(false),
            Ok(read) => {
                self.screen.process(&bytes[..read]);
                Ok(true)
            }
            // So Linux says that nobody has the other side open any more.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(false),
            Err(error) => Err(error).context("cannot read from a terminal"),
        }
    }

    /// Waits for the end of the program; it must have left the terminal as it found it: on the main screen, with a cursor,
    /// echoing what is typed line by line.
    pub async fn ends(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ending = async {
            while self.read().await? {}
            self.child.wait().await.context("cannot wait for a program on a terminal")
        };
        let status = timeout(limit, ending).await.context("it does not end").and_then(|status| status);
        let status = status.with_context(|| format!("the screen:\n{}", self.text()))?;
        let screen = self.screen.screen();
        ensure!(!screen.alternate_screen(), "it left its own screen behind:\n{}", self.text());
        ensure!(!screen.hide_cursor(), "it left the cursor hidden");
        let modes = tcgetattr(&self.pty).context("cannot ask a terminal for its modes")?.local_modes;
        ensure!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "it left {modes:?}");
        Ok(status)
    }
}
