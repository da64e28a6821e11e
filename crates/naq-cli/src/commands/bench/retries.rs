//! `retries`: jobs that fail once and are to be tried again at once.
//!
//! Invariant: each job runs twice, and its second run comes out of the scheduled store. The clock runs from the first start of a
//! handler until the store holds no job; a job counts once.

use std::{sync::Arc, time::Duration};

use naq_models::{JobError, Timestamp, Verdict};
use naq_services::JobContext;

use super::{
    Bench, Result,
    ground::{Ground, queue},
    report::{Report, Series},
    work::{Called, SLOTS, Tally, completed, expect_completed, per_second},
};
use crate::args::Question;

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let setup = format!(
        "{}, each fails once and is retried without a delay, with result; one worker with {SLOTS} slots, which leads",
        bench.load.text()
    );
    let series = Series::of(Question::Retries, "fail, retry and run");
    bench.rate(report, series, setup, async |ground| round(bench, ground).await).await?;
    Ok(())
}

async fn round(bench: &Bench<'_>, ground: &Ground) -> Result<f64> {
    let load = &bench.load;
    bench.fill(ground, load.jobs, |_| load.job().max_retries(1).retry_delay(Duration::ZERO).retry_jitter(0.0)).await?;
    let tally = Tally::of(2 * load.jobs);
    let counted = Arc::clone(&tally);
    let handler = Called(move |cx: JobContext| {
        counted.count();
        if cx.attempt() > 1 {
            return completed();
        }
        let failed = Verdict::Error(JobError::new("bench", "the first attempt fails", Timestamp::EPOCH));
        Box::pin(std::future::ready(failed))
    });
    let worker = ground.worker(SLOTS, &[queue()], Arc::new(handler)).await?;
    let emptied = async {
        tally.counted().await;
        ground.emptied().await?;
        Ok(per_second(load.jobs, tally.elapsed()))
    };
    let (rate, report) = bench.beside(ground, worker, emptied).await?;
    expect_completed(report.as_ref(), load.jobs)?;
    Ok(rate)
}
