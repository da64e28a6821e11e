//! Running other programs, and where the repository is.
//!
//! Programs get no standard input, so nothing here can wait for a person. A failure names the whole command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, ffi::OsString};

use anyhow::{Context, Result, bail};

/// The root of the checkout that `cargo xtask` was called in.
pub(crate) fn root() -> PathBuf {
    let manifest_dir =
        variable("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir.parent().map(Path::to_path_buf).unwrap_or(manifest_dir)
}

/// An environment variable; empty counts as unset.
#[expect(clippy::disallowed_methods, reason = "project tasks have no configuration besides their environment")]
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// `cargo` at the root of the repository.
pub(crate) fn cargo<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).args(args);
    command
}

/// Whether `program` can be started at all with `args` and then exits 0.
pub(crate) fn works(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Announces the command and runs it with its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    println!("$ {line}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// Runs the command quietly; its standard output, or an error that holds what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` did not print UTF-8"))
}

/// Announces the command and runs it with its messages on the terminal; its standard output.
pub(crate) fn printed(command: &mut Command) -> Result<String> {
    println!("$ {}", shown(command));
    output(command.stderr(Stdio::inherit()))
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}
