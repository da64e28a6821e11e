//! `cargo xtask features`: each feature of each crate builds by itself, and what a program that only enqueues has to build.
//!
//! Which crates such a program must not contain, and how many it may have, is a rule of `tidy`; here is how long building
//! them takes, from nothing, in a folder of its own. The time depends on the machine and is only told.

use std::path::Path;
use std::process::Command;
use std::time::Instant;
use std::{fs, io};

use anyhow::{Context, Result};

use crate::process::{cargo, root, run as run_command};
use crate::tools;

/// What a web process that only enqueues turns on, by the store it enqueues to. The first one is built by each `ci`.
const PRODUCERS: [&str; 2] = ["queue,nats", "queue,sqlite"];

pub(crate) fn run() -> Result<()> {
    each(&tools::all()?.cargo_hack)?;
    PRODUCERS.into_iter().try_for_each(lean_build)
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

/// Builds the producer of most users from nothing and says how long that took.
pub(crate) fn watched_build() -> Result<()> {
    lean_build(PRODUCERS[0])
}

fn lean_build(features: &str) -> Result<()> {
    let folder = root().join("target/lean");
    let empty = || match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot empty {}", folder.display()))
        }
        _ => Ok(()),
    };
    empty()?;
    let begin = Instant::now();
    let mut build = cargo(["build", "--locked", "--quiet", "--package", "naq", "--no-default-features"]);
    run_command(build.args(["--features", features, "--target-dir"]).arg(&folder))?;
    println!("naq with {features}: built in {:.0} s", begin.elapsed().as_secs_f64());
    empty()
}
