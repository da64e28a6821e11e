//! Very many jobs that are due at the same instant: all of them are enqueued, and nobody loses a heartbeat over it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use naq_tests::{Signal, eventually};
use serde_json::{Value, json};

use crate::{
    gate,
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, LEASE, Site, anonymous, envelope, on_every_store, with},
};

on_every_store!(fifty_thousand_at_one_instant_leave_no_gap_in_heartbeats);

const JOBS: usize = 50_000;
/// Enqueued first, to see how fast that goes: the instant must come after the last one is stored.
const TRIAL: usize = JOBS / 25;
const LIMIT: Duration = Duration::from_secs(200);

async fn fifty_thousand_at_one_instant_leave_no_gap_in_heartbeats(backend: Backend) -> Result<()> {
    let _alone = gate::heavy().await;
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let burning = site.path("burning");
    // One process that leads, runs jobs, and holds the lease of a job all the time.
    let worker = site.worker("all-in-one", &["--concurrency", "10"]).await?;
    let long = json!({"file": log.path(), "until": burning});
    site.enqueue_all([envelope("long", "t.log_sleep", long)]).await?;
    log.wait("start", 1, None, COMMAND_LIMIT).await?;
    let running = site.json(&["job", "status", "long"]).await?;
    let (begun, at) = (Instant::now(), time(&running["started_at"])?);
    let trial = with(anonymous("naq.noop", json!({})), json!({"queue": "trial", "run_at": "2100-01-01T00:00:00Z"}));
    site.enqueue_all(std::iter::repeat_n(trial, TRIAL)).await?;
    let lead = begun.elapsed() * 40 + Duration::from_secs(2);
    let job = with(anonymous("naq.noop", json!({})), json!({"run_at": at.saturating_add(lead).to_string()}));
    site.enqueue_all(std::iter::repeat_n(job, JOBS)).await?;
    let waiting = site.queue("default").await?;
    assert_eq!(waiting["scheduled"], json!(JOBS), "all of them wait before the instant: {waiting}");
    // The worker says every half second that it lives; it leaves the list when it has been silent for two.
    loop {
        let listed = site.json(&["worker", "list"]).await?;
        ensure!(listed.as_array().is_some_and(|workers| workers.len() == 1), "the list of workers is {listed}");
        let queue = site.queue("default").await?;
        if queue["scheduled"] == 0 {
            break;
        }
        ensure!(begun.elapsed() < LIMIT, "not all are in their queue: {queue}");
        // Looking costs a process, and must not be what the machine is busy with.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    std::fs::write(&burning, "")?;
    log.wait("end", 1, None, COMMAND_LIMIT).await?;
    worker.signal(Signal::TERM)?;
    let ended = worker.wait(Duration::from_secs(30)).await?;
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    // Its lease lasts two seconds and was kept all the while.
    assert_eq!(log.counts("start")?.values().sum::<usize>(), 1, "the lease of {LEASE:?} was lost");
    let mut seen = String::new();
    let all = eventually(COMMAND_LIMIT, "each is waiting or done", async || {
        let queue = site.queue("default").await.ok()?;
        let completed = match site.results_written().await.ok()? {
            // One that ran twice would count twice.
            Some(written) => written,
            None => u64::try_from(site.jobs("default", "completed").await.ok()?.len()).ok()?,
        };
        seen = format!("{completed} are done of {queue}");
        // What the worker had claimed and gave back counts as running until somebody claims it.
        let left = queue["pending"].as_u64()? + queue["running"].as_u64()?;
        (left + completed == JOBS as u64 + 1).then_some(())
    });
    all.await.with_context(|| seen.clone())?;
    Ok(())
}

fn time(value: &Value) -> Result<naq::Timestamp> {
    Ok(value.as_str().context("a time")?.parse()?)
}
