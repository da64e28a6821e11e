//! [`Plan`]: what to measure, and on what; written by xtask.
//!
//! Invariant: sizes follow from `quick` alone, so that two runs of one command measure the same.

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
    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 3 } else { 7 }
    }

    /// Rounds with events and without: a difference of a few percent takes more to be seen.
    pub(crate) fn telling_rounds(&self) -> usize {
        if self.quick { 3 } else { 15 }
    }

    /// Jobs of one round on a store.
    pub(crate) fn jobs(&self) -> usize {
        if self.quick { 10_000 } else { 40_000 }
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

    /// Seconds for which an idle worker is watched.
    pub(crate) fn idle_seconds(&self) -> u64 {
        if self.quick { 3 } else { 10 }
    }
}
