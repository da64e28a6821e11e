//! Jobs of the Python NAQ and of OmniQ, written by real Python, come over; what cannot be read stays as it was.
//!
//! Invariant: the other system's store is made by Python as that system makes it: streams and buckets by nats-py on each
//! nats-server, tables by `sqlite3`, files by `json`. No code of those systems runs.
#![cfg(all(feature = "sqlite", feature = "nats"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use naq_config::{NaqConfig, StoreUrl};
use naq_models::JobId;
use naq_services::{
    JobService, JobSettings, SchedulerService,
    foreign::{ForeignOptions, ForeignReport, ForeignStore, ForeignSystem, LeftReason},
    jobs::JobStatusView,
    open_storage,
};

mod omniq;
mod python_naq;
#[allow(dead_code, clippy::print_stdout, reason = "shared with the tests of the NATS store")]
#[path = "../nats/server.rs"]
mod server;

/// Services over a store of naq at `url`.
async fn services(url: &str, config: &NaqConfig) -> SchedulerService {
    let url: StoreUrl = url.parse().unwrap();
    let storage = open_storage(&url, config).await.unwrap();
    SchedulerService::new(JobService::new(Arc::clone(&storage), JobSettings::from(config)))
}

/// Brings over everything, with one kind renamed.
async fn bring_over(system: ForeignSystem, from: &str, to: &SchedulerService) -> ForeignReport {
    read(system, from, to, false).await
}

/// Says what would come over.
async fn foresee(system: ForeignSystem, from: &str, to: &SchedulerService) -> ForeignReport {
    read(system, from, to, true).await
}

async fn read(system: ForeignSystem, from: &str, to: &SchedulerService, dry_run: bool) -> ForeignReport {
    let mut store = ForeignStore::open(system, &from.parse().unwrap(), &NaqConfig::default()).await.unwrap();
    let kinds = [("mails:renamed".to_owned(), "renamed".to_owned())].into();
    let report = store.bring_over(to, &ForeignOptions { kinds, dry_run }).await.unwrap();
    store.close().await;
    report
}

/// Reasons with their counts, in an order of their own.
fn left(report: &ForeignReport) -> Vec<(LeftReason, u64)> {
    let mut left: Vec<_> = report.left.iter().map(|left| (left.reason, left.count)).collect();
    left.sort_by_key(|(reason, _)| format!("{reason:?}"));
    left
}

async fn status(to: &SchedulerService, id: &str) -> JobStatusView {
    to.jobs().status(&JobId::new(id).unwrap()).await.unwrap()
}

/// Runs a script; what it printed.
fn python(script: &str, args: &[&str]) -> String {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/foreign/samples");
    let paths = std::env::join_paths([modules(), samples]).unwrap();
    let mut command = Command::new("python3");
    command.args(["-B", "-c", script]).args(args).env("PYTHONPATH", paths).stdin(Stdio::null());
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}\n{out}");
    out.into_owned()
}

/// Where nats-py is.
fn modules() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the test runner says where the modules are")]
    let told = std::env::var("NAQ_TEST_PYTHON").ok().map(PathBuf::from);
    let found = told.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/python"));
    assert!(found.join("nats").is_dir(), "no nats-py in {}; run `cargo xtask tools` once", found.display());
    found
}
