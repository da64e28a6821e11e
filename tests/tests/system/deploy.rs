//! A deploy: the old worker is told to stop, and its long jobs go on in the new one as if nothing had happened.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Result;
use naq_tests::Signal;
use serde_json::json;

use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, envelope, on_every_store},
};

on_every_store!(long_jobs_go_on_elsewhere, short_jobs_finish_first, a_second_signal_hands_back_at_once);

const JOBS: usize = 20;

async fn long_jobs_go_on_elsewhere(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    // Whatever comes back soon was handed back: the lease lasts for much longer than this test.
    site.set("NAQ_QUEUES__ACK_WAIT", "5m");
    site.set("NAQ_WORKERS__SHUTDOWN_TIMEOUT", "500ms");
    let (log, release) = (RunLog::at(site.path("runs")), site.path("release"));
    let old = site.worker("old", &["--concurrency", "20"]).await?;
    let args = json!({"file": log.path(), "until": release});
    site.enqueue_all((0..JOBS).map(|n| envelope(format!("job-{n}"), "t.log_sleep", args.clone()))).await?;
    log.wait("start", JOBS, Some(old.pid()), COMMAND_LIMIT).await?;
    let new = site.worker("new", &["--concurrency", "20"]).await?;

    let stopped = Instant::now();
    old.signal(Signal::TERM)?;
    let finished = old.wait(COMMAND_LIMIT).await?;
    assert_eq!(finished.code(), Some(0), "{finished:#?}");
    // All of them at the same time: none is taken for a suspect that has to run alone.
    log.wait("start", JOBS, Some(new.pid()), Duration::from_secs(10)).await?;
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(10), "they were started again {took:?} after the signal");
    fs::write(&release, "")?;
    site.drained("default", COMMAND_LIMIT).await?;

    let completed = site.jobs("default", "completed").await?;
    assert_eq!(completed.len(), JOBS);
    assert!(completed.iter().all(|job| job["attempt"] == 1), "a deploy cost an attempt");
    assert!(log.said("start")?.iter().all(|line| line.attempt == 1), "a deploy cost an attempt");
    let ends = log.said("end")?;
    assert_eq!(ends.len(), JOBS);
    assert!(ends.iter().all(|line| line.pid == new.pid()));
    Ok(())
}

async fn short_jobs_finish_first(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    site.set("NAQ_WORKERS__SHUTDOWN_TIMEOUT", "20s");
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("old", &["--concurrency", "5"]).await?;
    let args = json!({"file": log.path(), "ms": 1500});
    site.enqueue_all((0..30).map(|n| envelope(format!("job-{n}"), "t.log_sleep", args.clone()))).await?;
    log.wait("start", 5, None, COMMAND_LIMIT).await?;
    worker.signal(Signal::INT)?;
    let finished = worker.wait(Duration::from_secs(15)).await?;
    assert_eq!(finished.code(), Some(0), "{finished:#?}");

    let (starts, ends) = (log.said("start")?.len(), log.said("end")?.len());
    assert_eq!(starts, ends, "a job was cut off");
    assert!(starts < 30, "it went on starting jobs after the signal");
    assert_eq!(site.ids("default", "completed").await?.len(), ends);
    let numbers = site.queue("default").await?;
    assert_eq!((&numbers["pending"], &numbers["running"]), (&json!(30 - ends), &json!(0)), "{numbers}");
    Ok(())
}

async fn a_second_signal_hands_back_at_once(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    site.set("NAQ_QUEUES__ACK_WAIT", "5m");
    site.set("NAQ_WORKERS__SHUTDOWN_TIMEOUT", "5m");
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("old", &["--concurrency", "3"]).await?;
    let args = json!({"file": log.path(), "until": site.path("never")});
    site.enqueue_all((0..3).map(|n| envelope(format!("job-{n}"), "t.log_sleep", args.clone()))).await?;
    log.wait("start", 3, None, COMMAND_LIMIT).await?;
    worker.signal(Signal::TERM)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(log.said("stop")?.len(), 0, "the first signal lets jobs finish");
    worker.signal(Signal::TERM)?;
    let finished = worker.wait(Duration::from_secs(12)).await?;
    assert!(finished.code().is_some(), "{finished:#?}");
    let new = site.worker("new", &["--concurrency", "3"]).await?;
    log.wait("start", 3, Some(new.pid()), Duration::from_secs(10)).await?;
    assert!(log.said("start")?.iter().all(|line| line.attempt == 1), "a deploy cost an attempt");
    Ok(())
}
