//! Security advisories for the dependencies, from a database at hand or one fetched now.
//!
//! A database folder (`NAQ_ADVISORY_DB`, else `../shared/advisory-db` beside the checkout) is copied to where
//! cargo-deny expects its clone and made a repository there, as cargo-deny reads nothing else. Without a database and
//! without a network the check is skipped, and the caller is told so: that is the only check that may be.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{cargo, output, root, run, variable};
use crate::tools;

/// The name that cargo-deny gives to its clone of the default database.
const CLONE: &str = "advisory-db-3157b0e258782691";

/// What became of the check.
pub(crate) enum Checked {
    Clean,
    /// There was no database, and none could be fetched.
    Skipped(String),
}

pub(crate) fn check(cargo_deny: &Path) -> Result<Checked> {
    // deny.toml names this folder as advisories.db-path.
    let databases = tools::folder().join("advisory-dbs");
    if let Some(given) = given_database() {
        println!("advisory database: {}", given.display());
        lay_out(&given, &databases.join(CLONE))?;
    } else if let Err(error) = output(Command::new(cargo_deny).current_dir(root()).args(["fetch", "db"])) {
        return Ok(Checked::Skipped(format!("{error:#}")));
    }
    for manifest in ["Cargo.toml", "tests/fuzz/Cargo.toml"] {
        // What only the fuzz targets need was not built, and may not be here yet.
        run(&mut cargo(["fetch", "--locked", "--manifest-path", manifest]))?;
        let words = ["--offline", "--config", "deny.toml", "--manifest-path", manifest, "check", "advisories"];
        run(Command::new(cargo_deny).current_dir(root()).args(words))?;
    }
    Ok(Checked::Clean)
}

fn given_database() -> Option<PathBuf> {
    let beside = root().join("../shared/advisory-db");
    variable("NAQ_ADVISORY_DB").map(PathBuf::from).or_else(|| beside.is_dir().then_some(beside))
}

fn lay_out(source: &Path, target: &Path) -> Result<()> {
    if target.exists() {
        fs::remove_dir_all(target).with_context(|| format!("cannot replace {}", target.display()))?;
    }
    copy_folder(source, target)
        .with_context(|| format!("cannot copy the advisory database {} to {}", source.display(), target.display()))?;
    let git = |args: &[&str]| output(Command::new("git").arg("-C").arg(target).args(args)).map(drop);
    git(&["init", "--quiet"])?;
    git(&["add", "--all", "--force"])?;
    git(&[
        "-c",
        "user.name=naq",
        "-c",
        "user.email=naq@localhost",
        "-c",
        "commit.gpgsign=false",
        "commit",
        "--quiet",
        "--no-verify",
        "--message=As given",
    ])
}

fn copy_folder(source: &Path, target: &Path) -> Result<()> {
    fs::create_dir_all(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let to = target.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            // A clone brings its own history; the new repository has one commit.
            if entry.file_name() != ".git" {
                copy_folder(&entry.path(), &to)?;
            }
        } else {
            // Not `fs::copy`, which would also copy a read-only mode and so forbid the next replacement.
            fs::write(&to, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
