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
    let measure = |ask: Ask<'_>| bench(&naq, &ask, options.quick, scratch);

    let mut found = Vec::new();
    if options.store != Stores::Nats {
        let url = format!("sqlite://{}", scratch.join("jobs.db").display());
        let ask = Ask { kind: Kind::Sqlite, url: &url, questions: &["--all"], setting: None };
        found.push(measure(ask)?);
        // What a commit costs that waits for the disk.
        let setting = Some(("NAQ_STORAGE__SYNCHRONOUS", "normal"));
        let (text, mut report) = measure(Ask { questions: &["enqueue", "run"], setting, ..ask })?;
        report.store.version += ", synchronous: normal";
        found.push((text, report));
    }
    if options.store != Stores::Sqlite {
        for (_, server) in super::servers(scratch)? {
            found.push(measure(Ask { kind: Kind::Nats, url: server.url(), questions: &["--all"], setting: None })?);
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

/// What `naq bench` is asked, and of which store.
#[derive(Clone, Copy)]
struct Ask<'a> {
    kind: Kind,
    url: &'a str,
    questions: &'a [&'a str],
    /// A variable that is set.
    setting: Option<(&'a str, &'a str)>,
}

/// The report of one store, as it was printed and as it was understood.
fn bench(naq: &Path, ask: &Ask<'_>, quick: bool, scratch: &Path) -> Result<(Value, Report)> {
    let &Ask { kind, url, questions, setting } = ask;
    let folder = tempfile::tempdir_in(scratch).context("no folder for naq")?;
    let mut command = Command::new(naq);
    command.args(["bench", "--json"]).args(questions).current_dir(folder.path()).env_clear();
    command.env("NAQ_URL", url).env("TMPDIR", folder.path()).envs(variable("PATH").map(|path| ("PATH", path)));
    command.envs(setting);
    if quick {
        command.arg("--quick");
    }
    let printed = printed(&mut command)?;
    let report = Report::read(&printed).with_context(|| format!("the report of `naq bench` on {url}"))?;
    ensure!(report.store.kind == kind, "asked for {kind:?} by NAQ_URL, `naq bench` measured {}", report.store.version);
    Ok((serde_json::from_str(&printed)?, report))
}
