//! What `naq bench --all --json` prints.
//!
//! Invariant: strict; a field that is not known here is an error, so that nothing that was measured is left out silently.

use anyhow::Result;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    /// The version of naq.
    pub(super) naq: String,
    pub(super) store: Store,
    pub(super) rows: Vec<Row>,
    pub(super) skipped: Vec<Skipped>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    pub(super) kind: Kind,
    /// `nats-server 2.15.0`
    pub(super) version: String,
    /// What a commit survives there.
    pub(super) durability: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Sqlite,
    Nats,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// A word that names a plot: `run`.
    pub(super) question: String,
    pub(super) what: String,
    /// Where on an axis it was measured.
    pub(super) at: Option<At>,
    pub(super) setup: String,
    pub(super) found: Found,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    pub(super) name: String,
    pub(super) value: f64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Found {
    /// The median of the rounds, with the lowest and the highest.
    Rate {
        per_s: f64,
        low: f64,
        high: f64,
        rounds: usize,
    },
    Latency {
        p50_ms: f64,
        p99_ms: f64,
        p999_ms: f64,
        max_ms: f64,
        samples: usize,
        offered_per_s: Option<f64>,
    },
    Amount {
        value: f64,
        unit: String,
    },
}

/// What could not be asked of this store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Skipped {
    pub(super) question: String,
    pub(super) why: String,
}

impl Report {
    pub(super) fn read(text: &str) -> Result<Self> {
        let report: Self = serde_json::from_str(text)?;
        // It becomes the name of a file.
        let is_word =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if let Some(row) = report.rows.iter().find(|row| !is_word(&row.question)) {
            anyhow::bail!("the question {:?} is no word", row.question);
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused_at_every_depth() {
        let text = include_str!("fixture/sqlite.json");
        assert_eq!(Report::read(text).unwrap().store.kind, Kind::Sqlite);
        for (from, to) in [
            ("\"naq\":", "\"new\": 1, \"naq\":"),
            ("\"per_s\":", "\"new\": 1, \"per_s\":"),
            ("\"durability\":", "\"new\": 1, \"durability\":"),
            ("\"setup\":", "\"new\": 1, \"setup\":"),
            ("\"why\":", "\"new\": 1, \"why\":"),
            ("\"rate\":", "\"pace\":"),
            ("\"question\": \"run\"", "\"question\": \"../run\""),
        ] {
            assert!(text.contains(from), "{from}");
            assert!(Report::read(&text.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
