//! What a worker costs when there is little to do, and when there is very much.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use naq_tests::NaqProcess;
use serde_json::json;

use crate::{
    gate,
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, Site, anonymous, on_every_store, with},
};

on_every_store!(an_idle_worker_sleeps, a_worker_with_100_000_pending_jobs_stays_small);

const WATCHED: Duration = Duration::from_secs(10);
/// Half a percent of one processor; the same work takes several times as long in a build that is not optimized.
const MAX_BUSY: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 50 });
/// `/proc/<pid>/stat` counts in hundredths of a second, on every Linux that this runs on.
const TICK: Duration = Duration::from_millis(10);
const PENDING: usize = 100_000;
const MAX_RESIDENT_KIB: u64 = 64 * 1024;

async fn an_idle_worker_sleeps(backend: Backend) -> Result<()> {
    let mut site = Site::start(backend).await?;
    // What a user gets: the site's own times are shorter than that.
    for (name, value) in [
        ("NAQ_QUEUES__ACK_WAIT", "30s"),
        ("NAQ_SCHEDULER__LOCK_TTL", "10s"),
        ("NAQ_SCHEDULER__LOCK_RENEW_INTERVAL", "3s"),
        ("NAQ_WORKERS__HEARTBEAT_INTERVAL", "15s"),
        ("NAQ_WORKERS__TTL", "60s"),
    ] {
        site.set(name, value);
    }
    let worker = site.worker_of(&site.naq()?, "idle", &["a", "b"]).await?;
    site.json(&["job", "enqueue", "naq.noop", "--queue", "a", "--wait", "10s"]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = busy(&worker)?;
    tokio::time::sleep(WATCHED).await;
    let used = busy(&worker)? - before;
    assert!(used <= MAX_BUSY, "it used {used:?} of {WATCHED:?}");
    Ok(())
}

/// User and system time so far.
fn busy(process: &NaqProcess) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
    // The name in parentheses may hold anything; fields are counted from after it.
    let rest = stat.rsplit_once(')').context("no name in stat")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u32 = fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    Ok(TICK * ticks)
}

async fn a_worker_with_100_000_pending_jobs_stays_small(backend: Backend) -> Result<()> {
    let _alone = gate::heavy().await;
    let site = Site::start(backend).await?;
    let log = RunLog::at(site.path("runs"));
    let args = json!({"file": log.path()});
    let padding = "x".repeat(150);
    let job = with(anonymous("t.count", args), json!({"meta": {"pad": padding}}));
    site.enqueue_all(std::iter::repeat_n(job, PENDING)).await?;
    let worker = site.test_worker().spawn(&["worker", "start", "--concurrency", "10"])?;
    log.wait("end", 3_000, None, COMMAND_LIMIT).await?;
    let left = site.queue("default").await?["pending"].as_u64().context("a number")?;
    let resident = peak_resident_kib(&worker)?;
    assert!(left > PENDING as u64 / 2, "too few jobs are pending for this to mean anything: {left}");
    assert!(resident < MAX_RESIDENT_KIB, "{resident} KiB resident at its peak");
    Ok(())
}

fn peak_resident_kib(process: &NaqProcess) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
    line.split_whitespace().nth(1).context("no number")?.parse().context("VmHWM is a number")
}
