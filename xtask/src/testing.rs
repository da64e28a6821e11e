//! `cargo xtask test`: every test of the workspace, with all features, against the pinned servers.
//!
//! The runner is cargo-nextest where it is installed. It cannot run documentation tests, so these run before it, and
//! only when everything was asked for: the last lines are the summary of the runner that ran the rest. The tests learn
//! where servers and the `naq` binary are from `NAQ_TEST_*` variables; plain `cargo test` works too, once
//! `cargo xtask tools` has run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{cargo, output, run as run_command, works};
use crate::tools::{self, Tools};

#[derive(clap::Args, Default)]
pub(crate) struct Selection {
    /// Run only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Run only the tests of this package
    #[arg(long, short)]
    package: Option<String>,
}

impl Selection {
    fn packages(&self) -> Vec<&str> {
        self.package.as_deref().map_or_else(|| vec!["--workspace"], |package| vec!["--package", package])
    }
}

pub(crate) fn run(selection: &Selection) -> Result<()> {
    let tools = tools::all()?;
    let binary = build()?;
    let with_environment = |command: &mut Command| {
        set_environment(command, &tools, &binary);
        run_command(command)
    };

    let filter = selection.filter.iter();
    if !works("cargo", &["nextest", "--version"]) {
        let mut command = cargo(["test", "--all-features"]);
        return with_environment(command.args(selection.packages()).arg("--").args(filter));
    }
    let mut documentation = Ok(());
    if selection.filter.is_none() && selection.package.is_none() {
        let mut command = cargo(["test", "--doc", "--workspace", "--all-features", "--no-fail-fast"]);
        documentation = with_environment(&mut command);
    }
    let mut command = cargo(["nextest", "run", "--all-features"]);
    // Both run, so that one call tells all there is to mend.
    with_environment(command.args(selection.packages()).args(filter)).and(documentation)
}

/// Builds every test and the `naq` binary with the very features the runner asks for, so that nothing is built twice.
pub(crate) fn build() -> Result<PathBuf> {
    run_command(&mut cargo(["build", "--workspace", "--all-features", "--bin", "naq", "--tests"]))?;
    Ok(target_directory()?.join("debug/naq"))
}

pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = output(&mut cargo(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
    metadata["target_directory"].as_str().map(PathBuf::from).context("cargo metadata names no target directory")
}

pub(crate) fn set_environment(command: &mut Command, tools: &Tools, binary: &Path) {
    command
        .env("NAQ_TEST_NATS_2_9", &tools.nats_2_9)
        .env("NAQ_TEST_NATS_2_15", &tools.nats_2_15)
        .env("NAQ_TEST_PYTHON", &tools.python)
        .env("NAQ_TEST_BIN", binary);
}
