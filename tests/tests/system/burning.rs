//! Handlers that do not cooperate: they burn the processor, block a thread, or never look at their token.

use std::time::{Duration, Instant};

use anyhow::Result;
use naq_tests::{Signal, eventually};
use serde_json::json;

use crate::{
    gate,
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, LEASE, Site, envelope, on_every_store},
};

on_every_store!(
    a_job_that_burns_for_three_leases_runs_once,
    a_job_that_ignores_its_token_is_abandoned_after_the_grace,
    a_worker_whose_slots_are_stuck_ends_for_its_supervisor
);

/// How long a job may go on after its timeout.
const GRACE: Duration = Duration::from_secs(10);

async fn a_job_that_burns_for_three_leases_runs_once(backend: Backend) -> Result<()> {
    let _alone = gate::heavy().await;
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let burner = site.worker("burner", &["--concurrency", "4"]).await?;
    // As many as the runtime has threads on most machines, so that nothing else of it can run.
    let args = json!({"file": log.path(), "ms": (3 * LEASE).as_millis() as u64});
    site.enqueue_all((0..4).map(|n| envelope(format!("burn-{n}"), "t.burn", args.clone()))).await?;
    log.wait("start", 2, None, COMMAND_LIMIT).await?;
    let rival = site.test_worker().spawn(&["worker", "start", "--name", "rival", "--concurrency", "4"])?;
    log.wait("end", 4, None, 10 * LEASE).await?;
    site.drained("default", COMMAND_LIMIT).await?;
    assert_eq!(log.said("start")?.len(), 4, "a job ran twice: {:?}", log.said("start")?);
    assert_eq!(site.ids("default", "completed").await?.len(), 4);
    drop((burner, rival));
    Ok(())
}

async fn a_job_that_ignores_its_token_is_abandoned_after_the_grace(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("only", &["--concurrency", "8"]).await?;
    let args = json!({"file": log.path(), "ms": 60_000});
    let begun = Instant::now();
    for kind in ["t.ignore_cancel", "t.block"] {
        site.enqueue(kind, &args, &["--job-id", &kind[2..], "--timeout", "1s", "--max-retries", "0"]).await?;
    }
    log.wait("start", 2, None, COMMAND_LIMIT).await?;
    for id in ["ignore_cancel", "block"] {
        let result = site.run(&["job", "result", id, "--wait", "20s"]).await?;
        assert_eq!(result.code(), Some(1), "{result:#?}");
        let result = result.json()?;
        assert_eq!((&result["status"], &result["error"]["error_type"]), (&json!("failed"), &json!("timeout")), "{id}");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1) + GRACE + Duration::from_secs(6), "they were settled after {took:?}");

    // The others go on, and nobody runs the abandoned ones again.
    let echo = site.json(&["job", "enqueue", "naq.echo", "--args", "{\"a\":1}", "--wait", "10s"]).await?;
    assert_eq!(echo["result"], json!({"a": 1}));
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(log.said("start")?.len(), 2);
    // A thread that is stuck does not keep the worker from ending.
    worker.signal(Signal::TERM)?;
    let finished = worker.wait(GRACE + Duration::from_secs(5)).await?;
    assert!(finished.code().is_some(), "{finished:#?}");
    Ok(())
}

async fn a_worker_whose_slots_are_stuck_ends_for_its_supervisor(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("only", &["--concurrency", "2"]).await?;
    let args = json!({"file": log.path(), "ms": 120_000});
    let id = site.enqueue("t.block", &args, &["--timeout", "1s", "--max-retries", "0"]).await?;
    let finished = worker.wait(Duration::from_secs(1) + GRACE + Duration::from_secs(15)).await?;
    assert!(finished.code().is_some_and(|code| code != 0), "half its slots are stuck: {finished:#?}");
    let failed = eventually(COMMAND_LIMIT, "the stuck job is settled", async || {
        let status = site.json(&["job", "status", &id]).await.ok()?;
        (status["status"] == "failed").then_some(status)
    });
    assert_eq!(failed.await?["error"]["error_type"], "timeout");
    Ok(())
}
