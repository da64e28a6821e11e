//! Leaders that die or sleep while a recurring job is due every quarter of a second.

use std::time::Duration;

use anyhow::{Context as _, Result};
use naq_tests::{NaqProcess, Signal, eventually};
use serde_json::json;

use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, on_every_store},
};

/// How many runs there are in all: some fifteen seconds of them, past three changes of the leader.
const RUNS: usize = 60;
const PERIOD: i64 = 250;

on_every_store!(each_run_starts_once_whoever_leads);

fn leads(process: &NaqProcess) -> bool {
    process.stderr().contains("leads the scheduler")
}

/// Takes the one that leads out of some of which one will.
async fn leader(candidates: &mut Vec<NaqProcess>) -> Result<NaqProcess> {
    let found = eventually(COMMAND_LIMIT, "somebody leads", async || candidates.iter().position(leads));
    let found = found.await?;
    Ok(candidates.remove(found))
}

async fn each_run_starts_once_whoever_leads(backend: Backend) -> Result<()> {
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let worker = site.worker("runs", &["--no-scheduler"]).await?;
    let start = || site.naq()?.spawn(&["scheduler", "start"]);
    let mut candidates = vec![start()?, start()?, start()?];
    let args = json!({"file": log.path()}).to_string();
    let (period, repeat) = (format!("{PERIOD}ms"), RUNS.to_string());
    let define = ["scheduler", "upsert", "often", "--kind", "t.count", "--args", &args, "--every", &period];
    let first = site.json(&[&define[..], &["--repeat", &repeat, "--missed", "all"]].concat()).await?;
    let first: naq::Timestamp = first["next"].as_str().context("it is due")?.parse()?;

    log.wait("end", 4, None, COMMAND_LIMIT).await?;
    leader(&mut candidates).await?.kill().await?;
    let asleep = leader(&mut candidates).await?;
    log.wait("end", 16, None, COMMAND_LIMIT).await?;
    // It sleeps past its lease, and wakes up while another leads.
    asleep.signal(Signal::STOP)?;
    candidates.push(start()?);
    let mut third = leader(&mut candidates).await?;
    log.wait("end", 36, None, COMMAND_LIMIT).await?;
    asleep.signal(Signal::CONT)?;
    log.wait("end", 42, None, COMMAND_LIMIT).await?;
    third.kill().await?;
    log.wait("end", RUNS, None, COMMAND_LIMIT).await?;

    let done = eventually(COMMAND_LIMIT, "the schedule has completed", async || {
        let shown = site.json(&["scheduler", "show", "often"]).await.ok()?;
        (shown["status"] == "completed" && shown["pending"] == 0).then_some(shown)
    });
    let shown = done.await?;
    assert_eq!((&shown["runs"], &shown["skipped"]), (&json!(RUNS), &json!(0)));
    site.drained("default", COMMAND_LIMIT).await?;
    let expected = (0..RUNS as i64).map(|n| (format!("often_{}", first.unix_millis() + n * PERIOD), 1)).collect();
    assert_eq!(log.counts("end")?, expected, "each due time once");
    worker.signal(Signal::TERM)?;
    let ended = worker.wait(Duration::from_secs(30)).await?;
    assert_eq!(ended.code(), Some(0), "{ended:#?}");
    Ok(())
}
