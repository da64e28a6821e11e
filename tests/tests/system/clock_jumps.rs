//! The wall clock of a host jumps by hours, forth and back, while jobs run and wait.
//!
//! The clock is shifted for every naq process; a server keeps its own.

use std::time::Duration;

use anyhow::Result;
use naq_tests::{ClockShift, NaqProcess, Signal};
use serde_json::json;

use crate::{
    run_log::RunLog,
    site::{Backend, COMMAND_LIMIT, LEASE, Site, on_every_store},
};

on_every_store!(no_jump_of_the_clock_runs_a_job_twice_or_early);

const HOURS: i64 = 5 * 3600;
/// The job that runs through all jumps: several leases long.
const LONG: Duration = Duration::from_secs(9);
const STEP: Duration = Duration::from_secs(2);

async fn no_jump_of_the_clock_runs_a_job_twice_or_early(backend: Backend) -> Result<()> {
    assert!(LONG > LEASE * 4);
    let mut site = Site::start(backend).await?;
    let on_a_server = site.server.is_some();
    let clock = ClockShift::prepare(site.dir())?;
    for (name, value) in clock.env() {
        site.set(&name, value);
    }
    let log = RunLog::at(site.path("runs"));
    let args = json!({"file": log.path()});
    let workers = [site.worker("one", &[]).await?, site.worker("two", &[]).await?];
    let long = json!({"file": log.path(), "ms": LONG.as_millis()});
    site.enqueue("t.ignore_cancel", &long, &["--job-id", "long"]).await?;
    log.wait("start", 1, None, COMMAND_LIMIT).await?;
    let begun = std::time::Instant::now();
    let delay = STEP * 3;
    site.enqueue("t.count", &args, &["--job-id", "delayed", "--delay", &format!("{}s", delay.as_secs())]).await?;
    if on_a_server {
        site.every("often", "t.count", &args, Duration::from_millis(500), 16).await?;
    }
    for jump in [HOURS, -HOURS] {
        tokio::time::sleep(STEP / 2).await;
        clock.set(jump)?;
        // A command sees the new time too, and means by a delay what the store means.
        let id = format!("after-{jump}");
        let before = std::time::Instant::now();
        site.enqueue("t.count", &args, &["--job-id", &id, "--delay", "500ms", "--wait", "10s"]).await?;
        assert!(before.elapsed() >= Duration::from_millis(500), "it ran after {:?}", before.elapsed());
        tokio::time::sleep(STEP / 2).await;
        if on_a_server {
            let ran = log.counts("end")?.contains_key("delayed");
            assert!(!ran || begun.elapsed() >= delay, "it ran after {:?}", begun.elapsed());
        }
    }
    clock.set(0)?;
    log.wait("end", if on_a_server { 4 + 16 } else { 4 }, None, COMMAND_LIMIT).await?;
    site.drained("default", COMMAND_LIMIT).await?;
    let counts = log.counts("end")?;
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert_eq!(log.counts("start")?.into_values().sum::<usize>(), 1, "the long job was started again");
    let ends: usize = workers.iter().map(leads).sum();
    assert_eq!(ends, 1, "the leader changed");
    for worker in workers {
        worker.signal(Signal::TERM)?;
        let ended = worker.wait(Duration::from_secs(30)).await?;
        assert_eq!(ended.code(), Some(0), "{ended:#?}");
    }
    Ok(())
}

fn leads(process: &NaqProcess) -> usize {
    process.stderr().matches("leads the scheduler").count()
}
