//! `cargo xtask bench --part gate`: the gated ratios against the recorded ones, in short rounds.
//!
//! Invariant: recorded is what this very gate measured, as short rounds give other ratios than long ones. A row fails by
//! the rule in [`verdict`] alone. Budgets are not judged here: those belong to `--part speed`.

mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::markdown;
use super::program::{self, Gate, Plan};
use super::server::Server;
use crate::process::root;
use verdict::{ALL, FIRST, Verdict, judge, limit, median};

/// What is gated: store and row, as the report names them.
const ROWS: [&str; 5] = [
    "SQLite, enqueue in bulk",
    "SQLite, run with result",
    "NATS 2.15, enqueue, pipelined",
    "NATS 2.15, run with result",
    "NATS 2.15, run without result",
];
/// Jobs of one side of a pair.
const JOBS: usize = 20_000;

/// The committed file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    machine: String,
    ratios: BTreeMap<String, f64>,
}

/// The ratios of the pairs of each row.
type Measured = BTreeMap<String, Vec<f64>>;

pub(super) fn check(scratch: &Path, out: &Path) -> Result<()> {
    let recorded = recorded()?;
    program::build()?;
    let begin = Instant::now();
    let mut measured = measure(scratch, &ROWS, FIRST)?;
    let doubtful: Vec<_> =
        ROWS.into_iter().filter(|row| judge(recorded.ratios[*row], &measured[*row]) == Verdict::InDoubt).collect();
    if !doubtful.is_empty() {
        println!("again, with more pairs: {}", doubtful.join("; "));
        for (row, ratios) in measure(scratch, &doubtful, ALL - FIRST)? {
            measured.entry(row).or_default().extend(ratios);
        }
    }
    keep(out, &measured)?;
    let machine = Machine::look(scratch).line();
    println!("\n{machine}\n\n{}", render(&recorded, &measured));
    println!("measured in {:.0} s; written to {}", begin.elapsed().as_secs_f64(), out.display());
    let fallen: Vec<_> =
        ROWS.into_iter().filter(|row| judge(recorded.ratios[*row], &measured[*row]) == Verdict::Fallen).collect();
    if !fallen.is_empty() {
        bail!(
            "slower than recorded: {}. Recorded on: {}. If it has to be, or on another machine, record anew \
             (`cargo xtask bench --part gate --write`, on an idle machine) and say why",
            fallen.join("; "),
            recorded.machine
        );
    }
    Ok(())
}

/// Measures each row as often as one in doubt is, and makes the medians the recorded ratios.
pub(super) fn record(scratch: &Path, out: &Path) -> Result<()> {
    let measured = measure(scratch, &ROWS, ALL)?;
    keep(out, &measured)?;
    // Two digits are what the noise leaves.
    let rounded = |ratio: f64| (ratio * 100.0).round() / 100.0;
    let ratios = measured.iter().map(|(row, ratios)| (row.clone(), rounded(median(ratios)))).collect();
    let text = serde_json::to_string_pretty(&Recorded { machine: Machine::look(scratch).line(), ratios })? + "\n";
    println!("{text}");
    fs::write(path(), text).with_context(|| format!("cannot write {}", path().display()))
}

/// Runs the program once, over fresh stores, for these rows alone.
fn measure(scratch: &Path, rows: &[&str], pairs: usize) -> Result<Measured> {
    let folder = tempfile::tempdir_in(scratch).context("no folder for the stores")?;
    let on = |store: &str| rows.iter().any(|row| row.starts_with(store));
    let servers = if on("NATS") { vec![Server::gated(folder.path())?] } else { Vec::new() };
    let plan = Plan {
        quick: false,
        speed: true,
        gate: Some(Gate { rows, pairs, jobs: JOBS }),
        delayed: false,
        events: false,
        sqlite: on("SQLite"),
        nats: servers.iter().map(program::Measured::new).collect(),
        scratch: folder.path(),
        out: &folder.path().join("found.json"),
    };
    let measured: Measured = plan.measure()?.into_ratios().collect();
    let wanted: BTreeSet<_> = rows.iter().copied().collect();
    let got: BTreeSet<_> = measured.keys().map(String::as_str).collect();
    if wanted != got {
        bail!("{wanted:?} were to be measured, and {got:?} were");
    }
    Ok(measured)
}

/// Before anything is judged, so that a failed run can be looked at.
fn keep(out: &Path, measured: &Measured) -> Result<()> {
    fs::write(out, serde_json::to_vec_pretty(measured)?).with_context(|| format!("cannot write {}", out.display()))
}

fn path() -> PathBuf {
    root().join("crates/naq-worker/benches/speed/recorded.json")
}

fn recorded() -> Result<Recorded> {
    let text = fs::read_to_string(path()).with_context(|| format!("cannot read {}", path().display()))?;
    let recorded: Recorded = serde_json::from_str(&text).context("the recorded ratios cannot be read")?;
    if let Some(row) = ROWS.into_iter().find(|row| !recorded.ratios.contains_key(*row)) {
        bail!("nothing is recorded of: {row}");
    }
    Ok(recorded)
}

/// A Markdown table.
fn render(recorded: &Recorded, measured: &Measured) -> String {
    let heads = ["row", "recorded", "limit", "measured", "pairs", ""].map(str::to_owned).to_vec();
    let line = |row: &str| {
        let (was, ratios) = (recorded.ratios[row], &measured[row]);
        let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let high = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let verdict = match judge(was, ratios) {
            Verdict::Kept => "kept",
            Verdict::InDoubt => "in doubt",
            Verdict::Unsteady => "unsteady, kept",
            Verdict::Fallen => "FALLEN",
        };
        let measured = format!("{:.2} ({low:.2} to {high:.2})", median(ratios));
        let numbers = [format!("{was:.2}"), format!("{:.2}", limit(was)), measured, ratios.len().to_string()];
        std::iter::once(row.to_owned()).chain(numbers).chain([verdict.to_owned()]).collect()
    };
    markdown::table(&heads, &ROWS.map(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So that a row that is renamed is recorded again, and the file cannot be half a file.
    #[test]
    fn every_row_is_recorded() {
        let recorded = recorded().unwrap();
        assert_eq!(recorded.ratios.len(), ROWS.len());
        assert!(recorded.ratios.values().all(|ratio| *ratio > 0.0));
    }

    #[test]
    fn the_table_tells_a_fall_from_the_rest() {
        let mut ratios: BTreeMap<_, _> = ROWS.map(|row| (row.to_owned(), 0.8)).into();
        ratios.insert(ROWS[4].to_owned(), 0.5);
        let recorded = Recorded { machine: "M".into(), ratios };
        let measured = ROWS.map(|row| (row.to_owned(), vec![0.5; ALL])).into();
        let table = render(&recorded, &measured);
        assert!(
            table.contains(
                "| SQLite, run with result       | 0.80     | 0.68  | 0.50 (0.50 to 0.50) | 15    | FALLEN |"
            ),
            "{table}"
        );
        assert_eq!((table.matches("FALLEN").count(), table.matches("kept").count()), (4, 1), "{table}");
    }
}
