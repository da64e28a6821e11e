//! Python, for what must not be done with naq's own code: damaging a file, speaking NATS as a stranger.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// Runs a script in a folder; an error that holds what it printed if it does not exit with 0. What it printed.
pub(crate) async fn run(dir: &Path, script: &str, args: &[&str]) -> Result<String> {
    run_with(&mut Command::new("python3"), dir, script, args).await
}

/// The same, with the modules that `cargo xtask tools` fetched.
pub(crate) async fn run_with_modules(dir: &Path, script: &str, args: &[&str]) -> Result<String> {
    let modules = naq_tests::python_modules()?;
    run_with(Command::new("python3").env("PYTHONPATH", modules), dir, script, args).await
}

async fn run_with(python: &mut Command, dir: &Path, script: &str, args: &[&str]) -> Result<String> {
    let python = python.arg("-c").arg(script.trim_start()).args(args).current_dir(dir);
    let output = python.stdin(Stdio::null()).kill_on_drop(true).output().await.context("cannot start python3")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "a Python script failed ({}):\n{err}\n{out}", output.status);
    Ok(out.into_owned())
}
