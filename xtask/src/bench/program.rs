//! The program that measures (`crates/naq-worker/benches/speed`): what it is asked, and running it.
//!
//! Invariant: the fields of a [`Plan`] are those that the program reads, which refuses any other.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::{
    server::{GATED, Server},
    table::Report,
};
use crate::process::{cargo, run as run_command};

#[derive(Serialize)]
pub(super) struct Plan<'a> {
    pub(super) quick: bool,
    pub(super) speed: bool,
    pub(super) gate: Option<Gate<'a>>,
    pub(super) delayed: bool,
    pub(super) events: bool,
    pub(super) sqlite: bool,
    pub(super) nats: Vec<Measured<'a>>,
    /// For the stores.
    pub(super) scratch: &'a Path,
    /// Where the report goes.
    pub(super) out: &'a Path,
}

/// Only these ratios.
#[derive(Serialize)]
pub(super) struct Gate<'a> {
    /// Store and row: `SQLite, run with result`.
    pub(super) rows: &'a [&'a str],
    pub(super) pairs: usize,
    /// Jobs of one side of a pair.
    pub(super) jobs: usize,
}

/// A server that runs.
#[derive(Serialize)]
pub(super) struct Measured<'a> {
    name: &'a str,
    url: &'a str,
    gated: bool,
}

impl<'a> Measured<'a> {
    pub(super) fn new((name, server): &'a (&str, Server)) -> Self {
        Self { name, url: server.url(), gated: *name == GATED }
    }
}

impl Plan<'_> {
    pub(super) fn measure(&self) -> Result<Report> {
        let mut bench = cargo(["bench", "--quiet", "--package", "naq-worker", "--bench", "speed", "--"]);
        run_command(bench.arg(serde_json::json!({ "measure": self }).to_string()))?;
        Report::read(self.out)
    }
}

/// So that no build disturbs what is measured next, or counts as its time.
pub(super) fn build() -> Result<()> {
    run_command(&mut cargo(["bench", "--quiet", "--package", "naq-worker", "--bench", "speed", "--no-run"]))
}
