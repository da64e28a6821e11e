//! A worker dies with everything it runs: its jobs run elsewhere soon, each to one end.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Result;
use naq_tests::Signal;
use serde_json::json;

use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, LEASE, Site, envelope, on_every_store},
};

on_every_store!(
    all_its_jobs_finish_elsewhere,
    a_killed_worker_leaves_the_list,
    what_was_delivered_to_a_stopped_worker_is_left_to_others,
);

const JOBS: usize = 50;
/// What the promise allows on top of the lease.
const SLACK: Duration = Duration::from_secs(5);

async fn all_its_jobs_finish_elsewhere(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let (log, release) = (RunLog::at(site.path("runs")), site.path("release"));
    let mut doomed = site.worker("doomed", &["--concurrency", "50"]).await?;
    let args = json!({"file": log.path(), "until": release});
    site.enqueue_all((0..JOBS).map(|n| envelope(format!("job-{n}"), "t.log_sleep", args.clone()))).await?;
    log.wait("start", JOBS, Some(doomed.pid()), COMMAND_LIMIT).await?;
    let survivor = site.worker("survivor", &["--concurrency", "50"]).await?;
    assert_eq!(log.said("start")?.len(), JOBS, "a job was started twice while its worker lived");

    doomed.kill().await?;
    let killed = Instant::now();
    fs::write(&release, "")?;
    log.wait("end", JOBS, Some(survivor.pid()), LEASE + SLACK).await?;
    let took = killed.elapsed();
    assert!(took <= LEASE + SLACK, "the last one ended {took:?} after the kill");

    site.drained("default", COMMAND_LIMIT).await?;
    let completed = site.jobs("default", "completed").await?;
    assert_eq!(completed.len(), JOBS);
    for job in &completed {
        assert_eq!(job["attempt"], 1, "a crash is not an attempt: {job}");
    }
    assert!(log.counts("end")?.values().all(|count| *count == 1), "{:?}", log.counts("end")?);
    assert_eq!(log.said("start")?.len(), 2 * JOBS, "each ran once in each worker");
    assert_eq!(site.queue("default").await?["failed"], 0);
    assert_eq!(site.results_written().await?.unwrap_or(JOBS as u64), JOBS as u64, "a job was settled twice");
    Ok(())
}

async fn a_killed_worker_leaves_the_list(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let mut doomed = site.worker("doomed", &[]).await?;
    doomed.kill().await?;
    let gone = naq_tests::eventually(Duration::from_secs(8), "the dead worker is not listed", async || {
        let workers = site.json(&["worker", "list"]).await.ok()?;
        workers.as_array().is_some_and(Vec::is_empty).then_some(())
    });
    gone.await
}

/// A worker that asks for jobs is stopped: what the store gives it meanwhile is not fresh when it wakes up.
async fn what_was_delivered_to_a_stopped_worker_is_left_to_others(backend: Backend) -> Result<()> {
    const JOBS: usize = 4;
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let asleep = site.worker("asleep", &["--concurrency", "4"]).await?;
    asleep.signal(Signal::STOP)?;
    let args = json!({"file": log.path()});
    site.enqueue_all((0..JOBS).map(|n| envelope(format!("job-{n}"), "t.count", args.clone()))).await?;
    let awake = site.worker("awake", &["--concurrency", "4"]).await?;
    log.wait("end", JOBS, Some(awake.pid()), LEASE + SLACK).await?;
    asleep.signal(Signal::CONT)?;
    // Both work, so that it has had the time to look at what it was given.
    site.enqueue_all((0..JOBS).map(|n| envelope(format!("later-{n}"), "t.count", args.clone()))).await?;
    log.wait("end", 2 * JOBS, None, COMMAND_LIMIT).await?;
    tokio::time::sleep(LEASE).await;
    let runs = log.counts("end")?;
    assert!(runs.len() == 2 * JOBS && runs.values().all(|count| *count == 1), "{runs:?}");
    Ok(())
}
