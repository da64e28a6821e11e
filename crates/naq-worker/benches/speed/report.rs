//! [`Report`]: what was found, as JSON for xtask.
//!
//! Invariant: a row carries its budget beside its value; whether it is kept is judged by whoever reads it.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::rounds::Compared;

#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) stores: Vec<Store>,
    pub(crate) rows: Vec<Row>,
}

/// A store that was measured, as it names itself.
#[derive(Debug, Serialize)]
pub(crate) struct Store {
    /// `SQLite 3.50.4`
    pub(crate) version: String,
    /// What a commit survives there.
    pub(crate) durability: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// `SQLite`, `NATS 2.15`
    pub(crate) store: String,
    pub(crate) what: String,
    /// A failed gate fails the run; other rows are for orientation.
    pub(crate) gated: bool,
    pub(crate) found: Found,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Found {
    /// Jobs a second against a bare loop.
    Ratio {
        #[serde(flatten)]
        compared: Compared,
        /// What the bare side is, in words.
        against: String,
        at_least: Option<f64>,
    },
    /// How long somebody waits for one thing.
    Latency {
        p50_ms: f64,
        p99_ms: f64,
        samples: usize,
        p50_below_ms: Option<f64>,
        /// What else was seen, in words.
        note: Option<String>,
    },
    /// Something that must stay small.
    Amount { value: f64, unit: &'static str, below: Option<f64> },
}

impl Report {
    pub(crate) fn add(&mut self, store: &str, what: &str, gated: bool, found: Found) {
        self.rows.push(Row { store: store.to_owned(), what: what.to_owned(), gated, found });
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?).with_context(|| format!("cannot write {}", path.display()))
    }
}
