//! One job that kills its worker, among twenty that do not: only it is given up.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use naq_tests::{NaqProcess, Signal, lock_file};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, envelope, on_every_store},
};

on_every_store!(only_the_poison_is_lost, a_store_that_is_away_makes_no_poison);

const SLEEPERS: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

async fn only_the_poison_is_lost(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let (log, release) = (RunLog::at(site.path("runs")), site.path("release"));
    let args = json!({"file": log.path(), "until": release});
    let sleeper = |n: usize| envelope(format!("sleeper-{n}"), "t.log_sleep", args.clone());
    site.enqueue_all((0..SLEEPERS).map(sleeper)).await?;
    site.enqueue("t.poison", &json!({"file": log.path(), "until": site.path("kill")}), &["--job-id", "poison"]).await?;
    let worker = site.worker("first", &["--concurrency", "21"]).await?;
    log.wait("start", SLEEPERS + 1, None, COMMAND_LIMIT).await?;
    fs::write(site.path("kill"), "")?;
    let (deaths, worker) = supervise(&site, worker, &release).await?;

    // Nobody can tell who was to blame for the first death; after it they run one by one, and `max_crashes` is 3.
    assert_eq!(deaths, 1 + 3);
    let result = site.run(&["job", "result", "poison"]).await?;
    assert_eq!(result.code(), Some(1), "{result:#?}");
    let result = result.json()?;
    assert_eq!((&result["status"], &result["error"]["error_type"]), (&json!("failed"), &json!("worker_lost")));
    assert_eq!(site.ids("default", "failed").await?, ["poison"]);
    assert_eq!(site.ids("default", "completed").await?.len(), SLEEPERS);
    // One that had ended but was not settled yet when the poison struck may have run again; none was left out.
    let ended = log.counts("end")?;
    assert!((0..SLEEPERS).all(|n| ended.contains_key(&format!("sleeper-{n}"))), "{ended:?}");
    assert_eq!(log.counts("start")?["poison"], 4);
    worker.signal(Signal::TERM)?;
    assert_eq!(worker.wait(COMMAND_LIMIT).await?.code(), Some(0));
    Ok(())
}

/// Starts a worker again as often as it dies, until nothing is left; how often that was, and the worker that is left.
async fn supervise(site: &Site, mut worker: NaqProcess, release: &std::path::Path) -> Result<(u32, NaqProcess)> {
    let (mut deaths, until) = (0, Instant::now() + LIMIT);
    loop {
        anyhow::ensure!(Instant::now() < until, "after {deaths} deaths: {}", site.queue("default").await?);
        if timeout(Duration::from_millis(200), worker.ended()).await.is_ok() {
            deaths += 1;
            fs::write(release, "")?;
            worker = site.test_worker().spawn(&["worker", "start", "--name", "next", "--concurrency", "21"])?;
            continue;
        }
        let numbers = site.queue("default").await.context("the queue's numbers")?;
        if numbers["pending"] == 0 && numbers["running"] == 0 {
            return Ok((deaths, worker));
        }
    }
}

/// A job whose worker died once is lost again and again because the store is away, and not because workers die of it.
async fn a_store_that_is_away_makes_no_poison(backend: Backend) -> Result<()> {
    // Longer than a lease and the time that the worker waits for an answer.
    const AWAY: Duration = Duration::from_secs(9);
    const MAX_CRASHES: usize = 3;
    let mut site = Site::start(backend).await?;
    let (log, release) = (RunLog::at(site.path("runs")), site.path("release"));
    let mut first = site.worker("first", &[]).await?;
    let args = json!({"file": log.path(), "until": release});
    site.enqueue("t.log_sleep", &args, &["--job-id", "long"]).await?;
    log.wait("start", 1, Some(first.pid()), COMMAND_LIMIT).await?;
    first.kill().await?;
    let worker = site.worker("second", &[]).await?;
    for round in 0..=MAX_CRASHES {
        let begun = format!("run {} of the job", round + 2);
        let started = async || (log.said("start").ok()?.len() >= round + 2).then_some(());
        naq_tests::eventually(COMMAND_LIMIT, begun, started).await?;
        if site.server.is_some() {
            site.nats()?.signal(Signal::STOP)?;
            tokio::time::sleep(AWAY).await;
            site.nats()?.signal(Signal::CONT)?;
        } else {
            lock_file(&site.path("jobs.db"), AWAY).await?;
        }
    }
    fs::write(&release, "")?;
    site.drained("default", COMMAND_LIMIT).await?;
    assert_eq!(site.ids("default", "completed").await?, ["long"], "{}", worker.stderr());
    Ok(())
}
