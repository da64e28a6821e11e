//! Very many jobs that are due at the same instant: all of them are enqueued, and nobody loses a heartbeat over it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use naq_tests::Signal;
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
/// A worker says every half second that it lives, and counts as dead after two seconds.
const LONGEST_SILENCE: Duration = Duration::from_millis(1_500);

async fn fifty_thousand_at_one_instant_leave_no_gap_in_heartbeats(backend: Backend) -> Result<()> {
    let _alone = gate::heavy().await;
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let (burning, args) = (site.path("burning"), json!({"file": log.path()}));
    // One process that leads, runs jobs, and holds the lease of a job all the time.
    let worker = site.worker("all-in-one", &["--concurrency", "10"]).await?;
    let long = json!({"file": log.path(), "until": burning});
    site.enqueue_all([envelope("long", "t.log_sleep", long)]).await?;
    log.wait("start", 1, None, COMMAND_LIMIT).await?;
    let running = site.json(&["job", "status", "long"]).await?;
    let clock = Clock { begun: Instant::now(), at: time(&running["started_at"])? };
    let trial = with(anonymous("naq.noop", json!({})), json!({"queue": "trial", "run_at": "2100-01-01T00:00:00Z"}));
    site.enqueue_all(std::iter::repeat_n(trial, TRIAL)).await?;
    let lead = clock.begun.elapsed() * 40 + Duration::from_secs(2);
    let job = with(anonymous("t.count", args), json!({"run_at": clock.at.saturating_add(lead).to_string()}));
    site.enqueue_all(std::iter::repeat_n(job, JOBS)).await?;
    let waiting = site.queue("default").await?;
    assert_eq!(waiting["scheduled"], json!(JOBS), "all of them wait before the instant: {waiting}");
    let silence = watch(&site, &log, &clock).await?;
    assert!(silence < LONGEST_SILENCE, "silent for {silence:?}");
    // Its lease lasts two seconds and was kept all the while.
    std::fs::write(&burning, "")?;
    site.drained("default", LIMIT).await?;
    let counts = log.counts("end")?;
    assert_eq!((counts.len(), counts.values().sum::<usize>()), (JOBS + 1, JOBS + 1));
    assert_eq!(log.counts("start")?.values().sum::<usize>(), 1, "the lease of {LEASE:?} was lost");
    worker.signal(Signal::TERM)?;
    let ended = worker.wait(Duration::from_secs(30)).await?;
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    Ok(())
}

/// Waits until all have run; the longest time that the worker had not said that it lives, as far as was seen.
async fn watch(site: &Site, log: &RunLog, clock: &Clock) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    loop {
        let ran = log.counts("end")?.len();
        if ran >= JOBS {
            return Ok(longest);
        }
        ensure!(clock.begun.elapsed() < LIMIT, "{ran} of {JOBS} ran");
        let now = clock.at.saturating_add(clock.begun.elapsed());
        let listed = site.json(&["worker", "list"]).await?;
        let seen = listed.as_array().and_then(|workers| workers.first()).context("the worker is not in the list")?;
        longest = longest.max(now.since(time(&seen["seen_at"])?));
    }
}

/// About the time of this host, from a time that was read when it had just passed.
struct Clock {
    begun: Instant,
    at: naq::Timestamp,
}

fn time(value: &Value) -> Result<naq::Timestamp> {
    Ok(value.as_str().context("a time")?.parse()?)
}
