//! A small library that is loaded before the C library of a process: the machine is not as it seems to be. Its parts are in
//! `src/preload`; each does nothing unless a variable asks for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

const PARTS: [&str; 2] = ["clock.c", "disk.c"];

/// Builds the library into `folder`, unless it is there.
pub(crate) fn build(folder: &Path) -> Result<PathBuf> {
    let library = folder.join("preload.so");
    if !library.exists() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/preload");
        // The compiler that has built SQLite for these tests.
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).args(PARTS.map(|part| sources.join(part)));
        let built = compiler.status()?;
        ensure!(built.success(), "cc: {built}");
    }
    Ok(library)
}

/// Tells the library something in a file. In one step, because a process may look at any moment.
pub(crate) fn tell(file: &Path, words: &str) -> Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, words)?;
    Ok(fs::rename(&new, file)?)
}

/// The variable that has a process load it.
pub(crate) fn variable(library: &Path) -> (String, String) {
    ("LD_PRELOAD".to_owned(), library.display().to_string())
}
