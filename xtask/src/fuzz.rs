//! `cargo xtask fuzz`: inputs that nobody thought of, for everything that reads bytes from outside.
//!
//! Invariant: nothing below `tests/fuzz` is changed: what libFuzzer finds worth keeping goes to `fuzz/` in the target
//! directory. An input that breaks a promise stays there, is named and printed, and fails the task. What is done with an
//! input is in `naq_tests::fuzz`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::{cargo, run as run_command, works},
    testing::target_directory,
};

/// As `naq_tests::fuzz::TARGETS` names them.
const TARGETS: [&str; 5] = ["envelope", "config", "cron", "jsonl", "migration"];
/// The crate of the targets, from the root.
const CRATE: &str = "tests/fuzz";
/// The longest input, in bytes: what is wrong with a longer one is wrong with a short one, and that is found sooner.
const LENGTH_MAX: u32 = 4096;
/// How long one input may take, in seconds; it takes milliseconds.
const INPUT_MAX: u32 = 10;
/// The most memory that the process of a target may hold, in MiB, a few of them its corpus: an allocation without bound is
/// a finding.
const MEMORY_MAX: u32 = 1024;
/// Bytes of an input that are printed.
const SHOWN_MAX: usize = 4096;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long inputs are made for each target, seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Which one; may be given several times [default: all]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(TARGETS))]
    target: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if !works("cargo", &["fuzz", "--version"]) {
        bail!("cargo-fuzz is not installed: cargo install --locked cargo-fuzz");
    }
    let folder = target_directory()?.join("fuzz");
    let targets = if options.target.is_empty() { TARGETS.map(str::to_owned).to_vec() } else { options.target.clone() };
    let mut failed = Vec::new();
    for target in targets {
        println!("\n=== {target}, {} s", options.seconds);
        if let Err(error) = fuzz(&target, options.seconds, &folder) {
            failed.push(format!("{target}: {error:#}"));
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

fn fuzz(target: &str, seconds: u64, folder: &Path) -> Result<()> {
    let [corpus, found] = ["corpus", "found"].map(|name| folder.join(name).join(target));
    for place in [&corpus, &found] {
        fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
    }
    let before = files(&found)?;
    // Without a sanitizer, because naq has no unsafe code of its own: so it runs with a stable compiler. Of several folders
    // libFuzzer writes to the first.
    let mut command = cargo(["fuzz", "run", "--sanitizer", "none", "--codegen-units", "16", "--fuzz-dir", CRATE]);
    command.arg("--target-dir").arg(folder.join("build")).arg(target).arg(&corpus);
    command.args([&format!("{CRATE}/seeds/{target}"), "--"]).args([
        &format!("-max_total_time={seconds}"),
        &format!("-max_len={LENGTH_MAX}"),
        &format!("-timeout={INPUT_MAX}"),
        &format!("-rss_limit_mb={MEMORY_MAX}"),
        // With its closing slash libFuzzer takes it for a folder.
        &format!("-artifact_prefix={}/", found.display()),
        "-print_final_stats=1",
    ]);
    let outcome = run_command(&mut command);
    for input in files(&found)?.difference(&before) {
        let bytes = fs::read(input).with_context(|| format!("cannot read {}", input.display()))?;
        println!("!!! kept as {}, {} bytes:", input.display(), bytes.len());
        println!("{}", bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii());
        println!("!!! once it is mended, make it a seed: {CRATE}/seeds/{target}/");
    }
    outcome
}

fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let cannot = || format!("cannot list {}", folder.display());
    let entries = fs::read_dir(folder).with_context(cannot)?;
    entries.map(|entry| entry.map(|entry| entry.path()).with_context(cannot)).collect()
}
