//! The scheduler while a million delayed jobs wait: its memory, how late it fires, and how soon another takes over.
//!
//! Invariant: two processes that only schedule, with the lock's default times, and one that only runs jobs, so that what is
//! measured is the scheduler. A job carries the time at which it is due, in the clock that all processes share.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use naq_services::{JobService, NewJob, new_job::secs};

use crate::{
    jobs,
    other_process::{OtherProcess, Role, STAMP, TICKS, WAIT, shared_nanos},
    plan::{Plan, Served},
    report::{Found, Report},
    rounds::quantile,
};

/// Jobs that are stored at once.
const CHUNK: usize = 50_000;
/// Until the jobs of the measurement are due; long enough to enqueue them.
const LEAD: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_millis(50);
/// For a scheduler to read a million entries.
const WARM_UP: Duration = Duration::from_secs(300);
/// Lock TTL (10 s) and 2 s.
const TAKEOVER_S: f64 = 12.0;
/// Longer than a takeover may take.
const AFTER_KILL: Duration = Duration::from_secs(30);

pub(crate) async fn measure(
    plan: &Plan,
    store: &str,
    gated: bool,
    service: &JobService,
    served: Served,
    report: &mut Report,
) -> Result<()> {
    let count = plan.delayed();
    eprintln!("{store}, {count} delayed jobs");
    let args = jobs::args();
    for _ in 0..count / CHUNK {
        let later = |_| NewJob::new(WAIT, &args).result_ttl(secs(0)).delay(secs(24 * 3600));
        jobs::enqueue(service, (0..CHUNK).map(later).collect()).await?;
    }
    let mut runner = OtherProcess::start(Role::Runner, served.clone())?;
    let first = OtherProcess::start(Role::Scheduler, served.clone())?;
    at_rest(&first).await?;
    ticks(service, 1).await?;
    runner.next_stamp().await.context("the first leader fires nothing")?;
    let second = OtherProcess::start(Role::Scheduler, served)?;
    let samples = plan.samples() / 2;
    ticks(service, samples).await?;
    let mut late = Vec::with_capacity(samples);
    for _ in 0..samples {
        late.push(runner.next_stamp().await?.as_secs_f64() * 1000.0);
    }
    let what = |what: &str| format!("{} k delayed jobs: {what}", count / 1000);
    let (p50_ms, p99_ms) = (quantile(&late, 0.5), quantile(&late, 0.99));
    let found = Found::Latency { p50_ms, p99_ms, samples, p50_below_ms: Some(100.0), note: None };
    report.add(store, &what("from due to start"), gated, found);
    for (who, process) in [("leader", &first), ("standby", &second)] {
        let found = Found::Amount { value: process.resident_mib()?, unit: "MiB", below: None };
        report.add(store, &what(&format!("{who}, resident memory")), gated, found);
    }

    at_rest(&second).await?;
    // One job is due every 50 ms from before the kill until after the takeover.
    let ticking = usize::try_from(AFTER_KILL.as_millis() / EVERY.as_millis())?;
    ticks(service, ticking).await?;
    runner.next_stamp().await?;
    first.stop().await?;
    let killed = Instant::now();
    let (mut longest, mut before) = (Duration::ZERO, killed);
    for _ in 1..ticking {
        runner.next_stamp().await?;
        longest = longest.max(before.elapsed());
        before = Instant::now();
    }
    let found = Found::Amount { value: longest.as_secs_f64(), unit: "s", below: Some(TAKEOVER_S) };
    report.add(store, &what("leader killed, until the next job starts"), gated, found);
    second.stop().await?;
    runner.stop().await
}

/// Waits until a scheduler's process uses its processor little: before, it is reading what waits, and cannot lead.
async fn at_rest(scheduler: &OtherProcess) -> Result<()> {
    let begun = Instant::now();
    let mut ran = scheduler.ran()?;
    loop {
        tokio::time::sleep(LEAD).await;
        let now = scheduler.ran()?;
        if now - ran < LEAD / 20 {
            return Ok(());
        }
        ensure!(begun.elapsed() < WARM_UP, "a scheduler does not come to rest");
        ran = now;
    }
}

/// Jobs that are due one after the other, and know when.
async fn ticks(service: &JobService, count: usize) -> Result<()> {
    let now = shared_nanos();
    let tick = |n: usize| {
        let after = LEAD + EVERY * u32::try_from(n).unwrap_or(u32::MAX);
        let due = now + i64::try_from(after.as_nanos()).unwrap_or(i64::MAX);
        NewJob::new(STAMP, [due]).queue(TICKS).delay(after)
    };
    jobs::enqueue(service, (0..count).map(tick).collect()).await
}
