//! `cargo xtask chaos`: naq under load while everything breaks at random, on one store or on each.
//!
//! Invariant: whatever it finds can be looked for again: each run prints its seed, and its folder keeps the history and what
//! every process wrote. A broken promise fails the task. What is broken and judged is in `naq_tests::chaos`.

use std::{
    fs,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    process::run as run_command,
    testing::{self, target_directory},
    tools,
};

/// As `naq_tests::chaos::Store` names them.
const STORES: [&str; 5] = ["sqlite", "nats-2.9", "nats-2.15", "cluster-2.9", "cluster-2.15"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long things break, minutes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=24 * 60))]
    minutes: u64,
    /// Decides what breaks when [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// On which store; may be given several times [default: all]
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(STORES))]
    store: Vec<String>,
    /// Where histories and logs go, a folder for each store [default: chaos/SEED in the target directory]
    #[arg(long)]
    folder: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let tools = tools::all()?;
    // As the tests build it, so that nothing is built twice; the harness stands beside the binary under test.
    let binary = testing::build()?;
    let target = target_directory()?;
    // Short enough to be read out; the standard library takes its hashers' keys from the system's randomness.
    let seed = options.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() % 1_000_000);
    let folder = options.folder.clone().unwrap_or_else(|| target.join("chaos").join(seed.to_string()));
    let stores = if options.store.is_empty() { STORES.map(str::to_owned).to_vec() } else { options.store.clone() };
    let mut failed = Vec::new();
    for store in stores {
        let place = folder.join(&store);
        // An earlier history would be judged with this one, and what a user has there is not ours to remove.
        if place.exists() {
            bail!("{} is there already: remove it, or name another --folder", place.display());
        }
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        println!("\n=== {store}, {} min, seed {seed}; {}", options.minutes, place.display());
        let mut command = Command::new(binary.with_file_name("chaos"));
        command.args([store.as_str(), &(options.minutes * 60).to_string(), &seed.to_string()]).arg(&place);
        testing::set_environment(&mut command, &tools, &binary);
        if let Err(error) = run_command(&mut command) {
            failed.push(format!("{store}: {error:#}"));
        }
    }
    if !failed.is_empty() {
        bail!("seed {seed}: {}", failed.join("; "));
    }
    Ok(())
}
