//! `cargo xtask bench`: naq's speed as ratios to bare loops, measured in one run.
//!
//! Invariant: it starts and ends the servers it needs, on loopback, with stores in a temporary folder on the disk of the
//! target directory; a missed budget of a gated row fails the task. What is measured and how is in
//! `crates/naq-worker/benches/speed`; here the machine is described and the table is judged and printed.

mod machine;
mod page;
mod server;
mod table;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::process::{cargo, run as run_command};
use crate::testing::target_directory;
use crate::tools;
use machine::Machine;
use server::Server;
use table::Report;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fewer rounds and fewer jobs: to see that it works, not to judge
    #[arg(long)]
    quick: bool,
    /// Which stores to measure
    #[arg(long, value_enum, default_value_t = Stores::All)]
    store: Stores,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
    /// Where the JSON goes [default: bench.json in the target directory]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the table into docs/operating/speed.md
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
    All,
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
    let servers = if options.store == Stores::Sqlite { Vec::new() } else { servers(&scratch)? };

    let nats: Vec<_> = servers
        .iter()
        .map(|(name, server)| json!({ "name": name, "url": server.url(), "gated": *name == GATED }))
        .collect();
    let plan = json!({ "measure": {
        "quick": options.quick,
        "speed": matches!(options.part, Part::Speed | Part::All),
        "delayed": matches!(options.part, Part::Delayed | Part::All),
        "events": matches!(options.part, Part::Events | Part::All),
        "sqlite": options.store != Stores::Nats,
        "nats": nats,
        "scratch": scratch.path(),
        "out": &out,
    }});
    let mut bench = cargo(["bench", "--quiet", "--package", "naq-worker", "--bench", "speed", "--"]);
    run_command(bench.arg(plan.to_string()))?;
    drop(servers);

    let report = Report::read(&out)?;
    let machine = Machine::look(scratch.path());
    println!("\n{}", machine.line());
    for store in &report.stores {
        println!("{}: {}", store.version, store.durability);
    }
    println!("\n{}", table::render(&report));
    println!("written to {}", out.display());
    if options.write {
        page::write(&report, &machine)?;
    }
    let missed = table::missed(&report);
    if !missed.is_empty() && !options.quick {
        bail!("budgets missed: {}", missed.join("; "));
    }
    Ok(())
}

/// The server whose ratios have to be kept.
const GATED: &str = "2.15";

fn servers(scratch: &tempfile::TempDir) -> Result<Vec<(&'static str, Server)>> {
    let tools = tools::all()?;
    let mut servers = Vec::new();
    for (name, program) in [(GATED, &tools.nats_2_15), ("2.9", &tools.nats_2_9)] {
        servers.push((name, Server::start(program, &scratch.path().join(name))?));
    }
    Ok(servers)
}
