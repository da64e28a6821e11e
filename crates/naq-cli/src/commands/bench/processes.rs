//! `startup`, `idle`, `memory`: what a worker is as a process.
//!
//! Invariant: the process is this very program and holds one worker with the user's configuration and one queue, and nothing of
//! what measures it.

use std::time::{Duration, Instant};

use naq_services::new_job::secs;

use super::{
    Bench, Result,
    ground::{Ground, queue},
    other_process::{self, OtherProcess, Role},
    report::{Found, Report, Series},
};
use crate::args::Question;

/// Until a worker that has just started has settled down.
pub(super) const SETTLE: Duration = secs(2);

/// From the start of the process to the first line of its first handler.
pub(super) async fn startup(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let series = Series::of(Question::Startup, "process start to first job");
    let mut millis = Vec::with_capacity(bench.load.rounds);
    for number in 1..=bench.load.rounds {
        bench.tell(series, &format!("round {number} of {}", bench.load.rounds));
        let took = bench.on_ground(async |ground| {
            ground.make_queues(&bench.load, &[queue()]).await?;
            bench.unless_stopped(ground.enqueue(vec![bench.load.job()])).await?;
            let begun = Instant::now();
            let mut worker = OtherProcess::start(bench, ground, Role::Run, bench.slots())?;
            bench.unless_stopped(worker.begun()).await?;
            let took = begun.elapsed();
            worker.kill().await?;
            Ok(took)
        });
        millis.push(took.await?.as_secs_f64() * 1000.0);
    }
    let setup = format!("one job waits, one queue, {} slots; median of {}", bench.slots(), bench.load.rounds);
    let (value, _) = Found::rates(millis);
    report.add(series, setup, Found::Amount { value, unit: "ms" });
    Ok(())
}

/// The share of a core that an idle worker uses.
pub(super) async fn idle(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let series = Series::of(Question::Idle, "idle worker, CPU");
    let watched = bench.load.watch;
    let share = settled(bench, series, async |worker| {
        let (begun, before) = (Instant::now(), worker.ran()?);
        bench.pause(watched).await?;
        Ok((worker.ran()? - before).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0)
    });
    let Some(value) = share.await? else {
        report.skip(Question::Idle, other_process::NOT_SEEN);
        return Ok(());
    };
    let setup = format!("one empty queue, {} slots, watched for {} s", bench.slots(), watched.as_secs());
    report.add(series, setup, Found::Amount { value, unit: "% of one core" });
    Ok(())
}

/// The resident memory of an idle worker.
pub(super) async fn memory(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let series = Series::of(Question::Memory, "idle worker, resident memory");
    let Some(value) = settled(bench, series, async |worker| worker.resident_mib()).await? else {
        report.skip(Question::Memory, other_process::NOT_SEEN);
        return Ok(());
    };
    let setup = format!("one empty queue, {} slots", bench.slots());
    report.add(series, setup, Found::Amount { value, unit: "MiB" });
    Ok(())
}

/// Looks at a worker's process that has settled down; `None` where the system does not show processes.
async fn settled<T>(
    bench: &Bench<'_>,
    series: Series,
    look: impl AsyncFnOnce(&OtherProcess) -> Result<T>,
) -> Result<Option<T>> {
    if !other_process::is_observable() {
        return Ok(None);
    }
    bench.tell(series, "watch");
    let seen = async |ground: &Ground| {
        ground.make_queues(&bench.load, &[queue()]).await?;
        let worker = OtherProcess::start(bench, ground, Role::Run, bench.slots())?;
        bench.pause(SETTLE).await?;
        let seen = look(&worker).await?;
        worker.kill().await?;
        Ok(seen)
    };
    bench.on_ground(seen).await.map(Some)
}
