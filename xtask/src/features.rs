//! `cargo xtask features`: each feature of each crate builds by itself, and what a program that only enqueues has to build.
//!
//! Which crates such a program must not contain, and how many it may have, is a rule of `tidy`; here is how long building
//! them takes, from nothing, in a folder of its own. The time depends on the machine and is only told.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::process::{cargo, root, run as run_command};
use crate::tools;

/// What a web process that only enqueues turns on, by the store it enqueues to.
const PRODUCERS: &[&str] = &["queue,nats", "queue,sqlite"];

pub(crate) fn run() -> Result<()> {
    each(&tools::all()?.cargo_hack)?;
    lean_builds()
}

/// Checks every library with no feature, with each of its features alone, and with its defaults; with all of them it is
/// checked anyway. What tests need is not built, and its features turn on nothing.
pub(crate) fn each(cargo_hack: &Path) -> Result<()> {
    run_command(
        Command::new(cargo_hack)
            .current_dir(root())
            .args(["hack", "clippy", "--locked", "--workspace", "--exclude", "xtask", "--exclude", "naq-tests"])
            .args(["--each-feature", "--exclude-all-features", "--", "-D", "warnings"]),
    )
}

/// Builds the producers from nothing and says how long that took.
pub(crate) fn lean_builds() -> Result<()> {
    for features in PRODUCERS {
        let folder = root().join("target/lean");
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        let begin = Instant::now();
        let mut build = cargo(["build", "--locked", "--quiet", "--package", "naq", "--no-default-features"]);
        run_command(build.args(["--features", features, "--target-dir"]).arg(&folder))?;
        println!("naq with {features}: built in {:.0} s", begin.elapsed().as_secs_f64());
    }
    Ok(())
}
