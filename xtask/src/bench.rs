//! `cargo xtask bench`: what naq costs, as ratios to bare loops, as a gate against getting slower, and in workloads.
//!
//! Invariant: it starts and ends the servers it needs, on loopback, with stores in a temporary folder on the disk of the
//! target directory; a missed budget or a fallen ratio of a gated row fails the task. What is measured and how is in
//! `crates/naq-worker/benches/speed` and in `naq bench`; here the machine is described, and what was found is judged,
//! printed, and written into the documentation.

mod gate;
mod machine;
mod markdown;
mod page;
mod plot;
mod program;
mod server;
mod table;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::testing::target_directory;
use crate::tools;
use machine::Machine;
use program::Plan;
use server::Server;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fewer rounds and fewer jobs: to see that it works, not to judge
    #[arg(long)]
    quick: bool,
    /// Which stores to measure; the gate measures those that it gates
    #[arg(long, value_enum, default_value_t = Stores::All)]
    store: Stores,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
    /// Where the JSON goes [default: bench.json in the target directory]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write what was found into docs/operating; of the gate: record the ratios that later runs are held against
    #[arg(long, conflicts_with = "quick")]
    write: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Ratios to bare loops, latency and footprint
    Speed,
    /// The scheduler while a million delayed jobs wait
    Delayed,
    /// What events cost, and how fast the history of one job is found
    Events,
    /// The three before this
    All,
    /// What users do, by `naq bench`, on every store
    Workloads,
    /// Whether the gated ratios have fallen under what is recorded
    Gate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Stores {
    Sqlite,
    Nats,
    All,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let target = target_directory()?;
    fs::create_dir_all(&target)?;
    let scratch = tempfile::Builder::new().prefix("bench-").tempdir_in(&target).context("no scratch folder")?;
    let out = options.out.clone().unwrap_or_else(|| target.join("bench.json"));
    match options.part {
        Part::Gate if options.quick => bail!("the gate is short as it is: it does not go with --quick"),
        Part::Gate if options.write => gate::record(scratch.path(), &out),
        Part::Gate => gate::check(scratch.path(), &out),
        Part::Workloads => workloads::run(options, &target, scratch.path(), &out),
        Part::Speed | Part::Delayed | Part::Events | Part::All => measure(options, scratch.path(), &out),
    }
}

/// The gate as `cargo xtask ci` runs it.
pub(crate) fn gate() -> Result<()> {
    run(&Options { quick: false, store: Stores::All, part: Part::Gate, out: None, write: false })
}

fn measure(options: &Options, scratch: &Path, out: &Path) -> Result<()> {
    let servers = if options.store == Stores::Sqlite { Vec::new() } else { servers(scratch)? };
    let plan = Plan {
        quick: options.quick,
        speed: matches!(options.part, Part::Speed | Part::All),
        gate: None,
        delayed: matches!(options.part, Part::Delayed | Part::All),
        events: matches!(options.part, Part::Events | Part::All),
        sqlite: options.store != Stores::Nats,
        nats: servers.iter().map(program::Measured::new).collect(),
        scratch,
        out,
    };
    let report = plan.measure()?;
    drop(servers);

    let machine = Machine::look(scratch);
    println!("\n{}", machine.line());
    for store in &report.stores {
        println!("{}: {}", store.version, store.durability);
    }
    println!("\n{}", table::render(&report));
    println!("written to {}", out.display());
    if options.write {
        page::write_speed(&report, &machine)?;
    }
    let missed = table::missed(&report);
    if !missed.is_empty() && !options.quick {
        bail!("budgets missed: {}", missed.join("; "));
    }
    Ok(())
}

fn servers(scratch: &Path) -> Result<Vec<(&'static str, Server)>> {
    let old = ("2.9", Server::start(&tools::all()?.nats_2_9, &scratch.join("2.9"))?);
    Ok(vec![Server::gated(scratch)?, old])
}
