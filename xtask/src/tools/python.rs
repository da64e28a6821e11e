//! The Python modules that tests use: nats-py, the foreign client that must understand naq without naq's code.
//!
//! A pinned wheel of pure Python, unpacked below `.tools/python`. Its SHA-256 is recorded here and checked before it is
//! unpacked; the stamp beside it says which version lies there. Nothing is installed into the system's Python.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{download_wheel, folder, sha256};
use crate::process::output;

const VERSION: &str = "2.16.0";
const SHA256: &str = "aeb1ff123966c05833d26c7df7e1d54c1c6d32b612428b21677a2e921f1fecae";

/// The folder to import from, filled where it is missing.
pub(super) fn modules() -> Result<PathBuf> {
    let modules = folder().join("python");
    let stamp = folder().join("python.stamp");
    let expected = format!("nats-py {VERSION} {SHA256}\n");
    if modules.join("nats").is_dir() && fs::read_to_string(&stamp).is_ok_and(|found| found == expected) {
        return Ok(modules);
    }
    fs::create_dir_all(folder()).with_context(|| format!("cannot create {}", folder().display()))?;
    let scratch = tempfile::tempdir_in(folder()).context("cannot create a scratch folder")?;
    let wheel = download_wheel(&format!("nats-py=={VERSION}"), scratch.path())?;
    let hash = sha256(&wheel)?;
    ensure!(hash == SHA256, "nats-py {VERSION}: SHA-256 is {hash}, recorded is {SHA256}");
    let unpacked = scratch.path().join("unpacked");
    output(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    if modules.exists() {
        fs::remove_dir_all(&modules).with_context(|| format!("cannot replace {}", modules.display()))?;
    }
    fs::rename(&unpacked, &modules).with_context(|| format!("cannot move it to {}", modules.display()))?;
    fs::write(&stamp, expected).context("cannot write the stamp")?;
    Ok(modules)
}
