//! [`Plan`]: what to measure, and on what; written by xtask.
//!
//! Invariant: sizes follow from `quick` and `gate` alone, so that two runs of one command measure the same.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::other_process::Role;

/// What this process is for.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Part {
    /// Measure and report.
    Measure(Plan),
    /// Be the worker in another process.
    Serve(Role, Served),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Fewer rounds, fewer jobs: to see that it works, not to judge.
    pub(crate) quick: bool,
    /// Compare with bare loops, and measure latency and footprint.
    pub(crate) speed: bool,
    /// Of `speed`, only these ratios, in short rounds.
    pub(crate) gate: Option<Gate>,
    /// Measure the scheduler while very many delayed jobs wait.
    pub(crate) delayed: bool,
    /// Measure what events cost, and how fast those of one job are found.
    pub(crate) events: bool,
    /// Measure the embedded store.
    pub(crate) sqlite: bool,
    /// Measure these servers.
    pub(crate) nats: Vec<Server>,
    /// An empty folder on the disk that is measured.
    pub(crate) scratch: PathBuf,
    /// Where the report goes.
    pub(crate) out: PathBuf,
}

/// The ratios that are held against recorded ones.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gate {
    /// Store and row: `SQLite, run with result`.
    pub(crate) rows: Vec<String>,
    /// Rounds, after the one that does not count.
    pub(crate) pairs: usize,
    /// Jobs of one side of a pair.
    pub(crate) jobs: usize,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    /// `2.15`
    pub(crate) name: String,
    pub(crate) url: String,
    /// Whether its ratios have to be kept.
    pub(crate) gated: bool,
}

/// The worker in another process.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) enum Served {
    Sqlite(PathBuf),
    Nats(String),
}

impl Plan {
    /// Whether the ratio of `what` on `store` is to be measured.
    pub(crate) fn compares(&self, store: &str, what: &str) -> bool {
        let row = format!("{store}, {what}");
        self.speed && self.gate.as_ref().is_none_or(|gate| gate.rows.contains(&row))
    }

    /// Whether to measure what is no ratio, too.
    pub(crate) fn beyond_ratios(&self) -> bool {
        self.speed && self.gate.is_none()
    }

    pub(crate) fn rounds(&self) -> usize {
        match &self.gate {
            Some(gate) => gate.pairs,
            None if self.quick => 3,
            None => 7,
        }
    }

    /// Batch sizes that the bare side on SQLite may choose from. A gate does not choose: the choice would be noise.
    pub(crate) fn batches(&self) -> &'static [usize] {
        if self.gate.is_some() { &[1000] } else { &[100, 500, 1000] }
    }

    /// Rounds with events and without: a difference of a few percent takes more to be seen.
    pub(crate) fn telling_rounds(&self) -> usize {
        if self.quick { 3 } else { 15 }
    }

    /// Jobs of one round on a store.
    pub(crate) fn jobs(&self) -> usize {
        match &self.gate {
            Some(gate) => gate.jobs,
            None if self.quick => 10_000,
            None => 40_000,
        }
    }

    /// Jobs of one measurement of latency.
    pub(crate) fn samples(&self) -> usize {
        if self.quick { 60 } else { 400 }
    }

    /// Jobs that wait while a worker's memory is measured.
    pub(crate) fn waiting(&self) -> usize {
        if self.quick { 20_000 } else { 100_000 }
    }

    /// Jobs that wait for their time while the scheduler is measured.
    pub(crate) fn delayed(&self) -> usize {
        if self.quick { 50_000 } else { 1_000_000 }
    }

    /// Events among which those of one job are looked for.
    pub(crate) fn told(&self) -> usize {
        if self.quick { 50_000 } else { 1_000_000 }
    }

    /// Results that a file keeps while others are written, or pruned.
    pub(crate) fn kept(&self) -> usize {
        if self.quick { 50_000 } else { 1_000_000 }
    }

    /// Seconds for which an idle worker is watched.
    pub(crate) fn idle_seconds(&self) -> u64 {
        if self.quick { 3 } else { 10 }
    }
}
