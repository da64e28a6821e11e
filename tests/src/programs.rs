//! Where the programs under test are: told by `cargo xtask test`, else found or built.
//!
//! Each answer is worked out once per process. This is the only place of the tests that reads the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};

use crate::ServerVersion;

/// An environment variable; empty counts as unset.
#[expect(clippy::disallowed_methods, reason = "`cargo xtask test` tells the tests by variables where programs are")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The names of all variables that configure naq or the tests; a child must not inherit them.
#[expect(clippy::disallowed_methods, reason = "a child's environment is made from ours")]
pub(crate) fn naq_variables() -> Vec<OsString> {
    let is_ours = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("NAQ_") || name.starts_with("OMNIQ_")
    };
    std::env::vars_os().map(|(name, _)| name).filter(is_ours).collect()
}

/// A folder for what a test leaves behind: removed when it is dropped, unless `NAQ_TEST_KEEP` is set.
///
/// # Errors
/// If it cannot be created.
pub fn temp_folder(prefix: &str) -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix(prefix).disable_cleanup(variable("NAQ_TEST_KEEP").is_some()).tempdir()
}

fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests have no parent folder")
}

/// The nats-server of this version: `NAQ_TEST_NATS_2_9` or `NAQ_TEST_NATS_2_15`, else what `cargo xtask tools` fetched.
pub fn nats_program(version: ServerVersion) -> Result<PathBuf> {
    let (name, told) = match version {
        ServerVersion::V2_9 => ("nats-server-2.9", variable("NAQ_TEST_NATS_2_9")),
        ServerVersion::V2_15 => ("nats-server-2.15", variable("NAQ_TEST_NATS_2_15")),
    };
    let program = match told {
        Some(told) => PathBuf::from(told),
        None => root()?.join(".tools/bin").join(name),
    };
    ensure!(program.is_file(), "no {} here; run `cargo xtask tools` once", program.display());
    Ok(program)
}

/// The folder of the Python modules that tests use: `NAQ_TEST_PYTHON`, else what `cargo xtask tools` fetched.
pub fn python_modules() -> Result<PathBuf> {
    let folder = match variable("NAQ_TEST_PYTHON") {
        Some(told) => PathBuf::from(told),
        None => root()?.join(".tools/python"),
    };
    ensure!(folder.join("nats").is_dir(), "no nats-py in {}; run `cargo xtask tools` once", folder.display());
    Ok(folder)
}

/// The `naq` binary: `NAQ_TEST_BIN`, else the one of the target folder that this test was built into, brought up to
/// date with `cargo build` once per process.
pub fn naq_program() -> Result<PathBuf> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PROGRAM.get_or_init(|| {
        let found = variable("NAQ_TEST_BIN").map_or_else(build_naq, |told| Ok(PathBuf::from(told)));
        found.map_err(|error| format!("{error:#}"))
    });
    let program = found.clone().map_err(anyhow::Error::msg)?;
    ensure!(program.is_file(), "no naq binary at {}", program.display());
    Ok(program)
}

fn build_naq() -> Result<PathBuf> {
    // <target>/<profile>/deps/<test>
    let test = std::env::current_exe().context("where this test is")?;
    let profile = test.ancestors().nth(2).context("this test is not in a target folder")?;
    let target = profile.parent().context("this test is not in a target folder")?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root()?).args(["build", "--quiet", "--package", "naq-cli", "--bin", "naq", "--target-dir"]);
    cargo.arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // Cargo's own lock on the target folder keeps concurrent test processes apart.
    let built = cargo.stdin(Stdio::null()).output().context("cannot start cargo")?;
    if !built.status.success() {
        bail!("cannot build the naq binary:\n{}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(profile.join("naq"))
}
