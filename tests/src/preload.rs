//! Small libraries that are loaded before the C library of a process: the machine is not as it seems to be.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

/// Builds `src/<name>.c` of this crate into `folder`.
pub(crate) fn build(folder: &Path, name: &str) -> Result<PathBuf> {
    let library = folder.join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{name}.c"));
    // The compiler that has built SQLite for these tests.
    let mut compiler = Command::new("cc");
    let built = compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status()?;
    ensure!(built.success(), "cc: {built}");
    Ok(library)
}
