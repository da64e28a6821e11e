//! `enqueue`: how fast jobs are stored, by the way in which a producer asks.
//!
//! Invariant: no worker runs; the clock runs from the first call to the last receipt, encoding included.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    Bench, Result,
    ground::Ground,
    load::Load,
    report::{Report, Series, grouped},
    work::{CHUNK, per_second},
};
use crate::{args::Question, error::CliError};

/// Calls that are under way at once where they are pipelined.
pub(super) const IN_FLIGHT: usize = 512;
/// One by one is slow where a write is; a round of it ends after this time.
const ONE_BY_ONE: Duration = Duration::from_secs(5);
/// One by one a tenth of the jobs is enough.
const SHARE: usize = 10;

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let load = &bench.load;
    let few = load.of_jobs(load.jobs.div_ceil(SHARE));

    let series = Series::of(Question::Enqueue, "one by one");
    let setup = format!("{}, or as many as go into {} s; each call awaited", few.text(), ONE_BY_ONE.as_secs());
    bench
        .rate(report, series, setup, async |ground| {
            let begun = Instant::now();
            let mut stored = 0;
            while stored < few.jobs && begun.elapsed() < ONE_BY_ONE && !bench.stop.is_requested() {
                ground.jobs.enqueue(few.job()).await?;
                stored += 1;
            }
            Ok(per_second(stored, begun.elapsed()))
        })
        .await?;

    let series = Series::of(Question::Enqueue, "pipelined");
    let setup = format!("{}, one call each, {} calls in flight", load.text(), grouped(IN_FLIGHT));
    bench
        .rate(report, series, setup, async |ground| {
            let begun = Instant::now();
            bench.unless_stopped(pipelined(ground, load)).await?;
            Ok(per_second(load.jobs, begun.elapsed()))
        })
        .await?;

    let series = Series::of(Question::Enqueue, "in bulk");
    bulk(bench, report, series, load).await
}

/// Stores the jobs of each round in bulk.
pub(super) async fn bulk(bench: &Bench<'_>, report: &mut Report, series: Series, load: &Load) -> Result<()> {
    let setup = format!("{}, enqueue_many of {} at once", load.text(), grouped(load.jobs.min(CHUNK)));
    bench
        .rate(report, series, setup, async |ground| {
            let begun = Instant::now();
            bench.fill(ground, load.jobs, |_| load.job()).await?;
            Ok(per_second(load.jobs, begun.elapsed()))
        })
        .await?;
    Ok(())
}

async fn pipelined(ground: &Ground, load: &Load) -> Result<()> {
    let calls = stream::iter(0..load.jobs).map(|_| ground.jobs.enqueue(load.job()));
    let stored = calls.buffer_unordered(IN_FLIGHT).try_for_each(|_| std::future::ready(Ok(())));
    stored.await.map_err(CliError::from)
}
