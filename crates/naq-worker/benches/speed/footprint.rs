//! What a worker costs while it has nothing to do, and while much waits.
//!
//! Invariant: the worker is a process of its own, so that nothing of the measuring counts.

use std::time::Duration;

use anyhow::Result;
use naq_services::{JobService, NewJob, new_job::secs};

use crate::{
    jobs,
    other_process::{OtherProcess, WAIT},
    plan::Plan,
    report::{Found, Report},
};

/// Until a worker that has just started has settled down.
const SETTLE: Duration = Duration::from_secs(2);

/// A worker whose queues are empty; then the same worker while its slots are taken and many jobs wait.
pub(crate) async fn measure(
    plan: &Plan,
    store: &str,
    gated: bool,
    service: &JobService,
    worker: &OtherProcess,
    report: &mut Report,
) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let before = worker.ran()?;
    let watched = Duration::from_secs(plan.idle_seconds());
    tokio::time::sleep(watched).await;
    let share = (worker.ran()? - before).as_secs_f64() / watched.as_secs_f64() * 100.0;
    let found = Found::Amount { value: share, unit: "% of one core", below: Some(0.5) };
    report.add(store, "idle worker, CPU", gated, found);

    let args = jobs::args();
    let waiting: Vec<NewJob> = (0..plan.waiting()).map(|_| NewJob::new(WAIT, &args).result_ttl(secs(0))).collect();
    jobs::enqueue(service, waiting).await?;
    tokio::time::sleep(SETTLE).await;
    let found = Found::Amount { value: worker.resident_mib()?, unit: "MiB", below: Some(64.0) };
    let what = format!("worker while {} k jobs wait, resident memory", plan.waiting() / 1000);
    report.add(store, &what, gated, found);
    Ok(())
}
