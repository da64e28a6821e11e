//! `cargo xtask bench --part workloads`: `naq bench --all` on each store, its tables and its plots.
//!
//! Invariant: `naq` is told its store by the environment and knows nothing else of the caller's: no settings, no home, no
//! files of the working directory. Whatever of its report is not understood is an error.

mod pages;
mod report;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Options, Stores, machine::Machine, page};
use crate::process::{cargo, printed, run as run_command, variable};
use report::{Kind, Report};

pub(super) fn run(options: &Options, target: &Path, scratch: &Path, out: &Path) -> Result<()> {
    run_command(&mut cargo(["build", "--release", "--quiet", "--package", "naq-cli", "--bin", "naq"]))?;
    let naq = target.join("release/naq");
    let measure = |kind, url: &str| bench(&naq, kind, url, options.quick, scratch);

    let mut found = Vec::new();
    if options.store != Stores::Nats {
        found.push(measure(Kind::Sqlite, &format!("sqlite://{}", scratch.join("jobs.db").display()))?);
    }
    if options.store != Stores::Sqlite {
        for (_, server) in super::servers(scratch)? {
            found.push(measure(Kind::Nats, server.url())?);
        }
    }
    let machine = Machine::look(scratch);
    let (texts, reports): (Vec<Value>, Vec<Report>) = found.into_iter().unzip();
    let all = json!({ "machine": machine.line(), "reports": texts });
    fs::write(out, serde_json::to_vec_pretty(&all)?).with_context(|| format!("cannot write {}", out.display()))?;

    let text = format!("{}.\n{}", machine.line(), pages::text(&reports));
    println!("\n{text}\nwritten to {}", out.display());
    if options.write {
        for (name, svg) in pages::plots(&reports)? {
            page::write_plot(&name, &svg)?;
        }
        page::write("workloads.md", &format!("{}.\n{}", machine.line(), pages::linked(&reports)))?;
    }
    Ok(())
}

/// The report of one store, as it was printed and as it was understood.
fn bench(naq: &Path, kind: Kind, url: &str, quick: bool, scratch: &Path) -> Result<(Value, Report)> {
    let folder = tempfile::tempdir_in(scratch).context("no folder for naq")?;
    let mut command = Command::new(naq);
    command.args(["bench", "--all", "--json"]).current_dir(folder.path()).env_clear();
    command.env("NAQ_URL", url).env("TMPDIR", folder.path()).envs(variable("PATH").map(|path| ("PATH", path)));
    if quick {
        command.arg("--quick");
    }
    let printed = printed(&mut command)?;
    let report = Report::read(&printed).with_context(|| format!("the report of `naq bench` on {url}"))?;
    ensure!(report.store.kind == kind, "asked for {kind:?} by NAQ_URL, `naq bench` measured {}", report.store.version);
    Ok((serde_json::from_str(&printed)?, report))
}
