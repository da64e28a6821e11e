//! The commands, one module for each group of `naq --help`.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::{error::CliError, output::Output};

pub(crate) mod bench;
mod bulk;
pub(crate) mod config;
mod control;
pub(crate) mod dead;
pub(crate) mod demo;
mod doctor;
pub(crate) mod events;
mod foreign;
pub(crate) mod job;
mod migrate;
pub(crate) mod queue;
pub(crate) mod scheduler;
pub(crate) mod system;
pub(crate) mod top;
pub(crate) mod worker;

/// Asks before something that cannot be taken back. Where nobody can answer, `--yes` is needed.
fn confirm(out: Output, yes: bool, question: &str) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if out.is_json() || !io::stdin().is_terminal() {
        return Err(CliError::usage(format!("{question} Say so with --yes")));
    }
    let mut err = io::stderr().lock();
    let asked = write!(err, "{question} [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    asked
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(|e| CliError::failed(format!("cannot ask: {e}")))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(CliError::failed("nothing was done")) }
}
