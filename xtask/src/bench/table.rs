//! The table of a report, and which of its budgets were missed.
//!
//! Invariant: judges by the numbers in the report alone; the same report gives the same table.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::markdown::{self, thousands};
use super::plot::Bar;

/// What the measurements wrote.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    pub(super) stores: Vec<Store>,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Store {
    pub(super) version: String,
    pub(super) durability: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Row {
    store: String,
    what: String,
    gated: bool,
    found: Found,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Found {
    Ratio {
        naq: f64,
        bare: f64,
        naq_cpu_us: f64,
        bare_cpu_us: f64,
        ratio: f64,
        ratio_low: f64,
        ratio_high: f64,
        ratios: Vec<f64>,
        against: String,
        at_least: Option<f64>,
    },
    Latency {
        p50_ms: f64,
        p99_ms: f64,
        p50_below_ms: Option<f64>,
        note: Option<String>,
    },
    Amount {
        value: f64,
        unit: String,
        below: Option<f64>,
    },
}

impl Report {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).context("the report cannot be read")
    }

    /// The ratios of all rounds, by store and row.
    pub(super) fn into_ratios(self) -> impl Iterator<Item = (String, Vec<f64>)> {
        self.rows.into_iter().filter_map(|row| match row.found {
            Found::Ratio { ratios, .. } => Some((format!("{}, {}", row.store, row.what), ratios)),
            Found::Latency { .. } | Found::Amount { .. } => None,
        })
    }

    /// The ratios as a picture of bars, each with its budget.
    pub(super) fn bars(&self) -> Vec<Bar> {
        let bar = |row: &Row| match &row.found {
            Found::Ratio { ratio, ratio_low, ratio_high, at_least, .. } => Some(Bar {
                label: format!("{}, {}", row.store, row.what),
                value: *ratio,
                span: Some((*ratio_low, *ratio_high)),
                mark: *at_least,
            }),
            Found::Latency { .. } | Found::Amount { .. } => None,
        };
        self.rows.iter().filter_map(bar).collect()
    }
}

impl Row {
    /// `None` if it has no budget.
    fn is_kept(&self) -> Option<bool> {
        match &self.found {
            Found::Ratio { ratio, at_least, .. } => at_least.map(|least| *ratio >= least),
            Found::Latency { p50_ms, p50_below_ms, .. } => p50_below_ms.map(|limit| *p50_ms < limit),
            Found::Amount { value, below, .. } => below.map(|limit| *value < limit),
        }
    }

    fn cells(&self) -> [String; 6] {
        let (value, detail, budget) = match &self.found {
            Found::Ratio {
                naq,
                bare,
                naq_cpu_us,
                bare_cpu_us,
                ratio,
                ratio_low,
                ratio_high,
                against,
                at_least,
                ..
            } => (
                format!("{ratio:.2} ({ratio_low:.2} to {ratio_high:.2})"),
                format!(
                    "{} against {} jobs/s, {naq_cpu_us:.1} against {bare_cpu_us:.1} µs of CPU a job: {against}",
                    thousands(*naq),
                    thousands(*bare)
                ),
                at_least.map(|least| format!("at least {least:.2}")),
            ),
            Found::Latency { p50_ms, p99_ms, p50_below_ms, note } => (
                format!("p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms"),
                note.clone().unwrap_or_default(),
                p50_below_ms.map(|limit| format!("p50 under {limit} ms")),
            ),
            Found::Amount { value, unit, below } => {
                (format!("{value:.2} {unit}"), String::new(), below.map(|limit| format!("under {limit} {unit}")))
            }
        };
        let kept = match (self.is_kept(), self.gated) {
            (None, _) => "",
            (Some(true), _) => "kept",
            (Some(false), true) => "MISSED",
            (Some(false), false) => "missed, reported only",
        };
        [self.store.clone(), self.what.clone(), value, detail, budget.unwrap_or_default(), kept.into()]
    }
}

/// The gated rows whose budget was missed, in words.
pub(super) fn missed(report: &Report) -> Vec<String> {
    let missed = report.rows.iter().filter(|row| row.gated && row.is_kept() == Some(false));
    missed
        .map(|row| {
            let [store, what, value, ..] = row.cells();
            format!("{store}, {what}: {value}")
        })
        .collect()
}

/// A Markdown table.
pub(super) fn render(report: &Report) -> String {
    let heads = ["store", "what", "measured", "from", "budget", ""].map(str::to_owned);
    let lines: Vec<_> = report.rows.iter().map(|row| row.cells().to_vec()).collect();
    markdown::table(&heads, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(gated: bool, ratio: f64, p50_ms: f64) -> Report {
        let text = format!(
            r#"{{"stores": [], "rows": [
                {{"store": "S", "what": "enqueue", "gated": {gated}, "found": {{"ratio": {{"naq": 9000.0,
                 "bare": 20000.0, "naq_cpu_us": 41.4, "bare_cpu_us": 23.6, "ratio": {ratio}, "ratio_low": 0.1, "ratio_high": 1.0, "ratios": [0.1, 1.0], "rounds": 3,
                 "jobs_per_round": 1, "against": "bare", "at_least": 0.8}}}}}},
                {{"store": "S", "what": "idle", "gated": {gated}, "found": {{"latency": {{"p50_ms": {p50_ms},
                 "p99_ms": 9.0, "samples": 1, "p50_below_ms": 2.0, "note": "seen"}}}}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_gated_rows_beyond_their_budget_are_missed() {
        assert_eq!(missed(&report(true, 0.8, 1.99)), Vec::<String>::new());
        assert_eq!(missed(&report(false, 0.5, 5.0)), Vec::<String>::new());
        let missed = missed(&report(true, 0.79, 2.0));
        assert_eq!(missed, ["S, enqueue: 0.79 (0.10 to 1.00)", "S, idle: p50 2.00 ms, p99 9.00 ms"]);
    }

    #[test]
    fn a_missed_budget_stands_in_the_table() {
        let table = render(&report(true, 0.5, 1.0));
        assert!(table.contains("9000 against 20.0 k jobs/s, 41.4 against 23.6 µs of CPU a job: bare"), "{table}");
        assert!(table.contains("MISSED") && table.contains("| seen "), "{table}");
    }
}
