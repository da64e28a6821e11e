//! `dependants`: jobs that wait for jobs: many for one, and each for the one before.
//!
//! Invariant: all are stored while the first runs and waits to be let go. The clock runs from the first start of a dependant: of
//! many, until the store holds no job; of a chain, to the last start.

use std::sync::Arc;

use naq_models::{RawJson, Verdict};
use naq_services::JobContext;
use tokio::sync::Semaphore;

use super::{
    Bench, Result,
    ground::{Ground, queue},
    load::{Load, Payload},
    report::{Report, Series},
    work::{Called, SLOTS, Tally, completed, expect_completed, per_second},
};
use crate::{args::Question, error::CliError};

/// The number of the job that waits to be let go; the others have 0.
const GATE: usize = 1;
/// A chain goes by the time of one link after the other, so that a short one says enough.
const CHAIN: usize = 200;

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let with = format!("with results; one worker with {SLOTS} slots, which leads");
    let setup = format!("{}, all wait for one; {with}", bench.load.text());
    let series = Series::of(Question::Dependants, "fan-out");
    bench.rate(report, series, setup, async |ground| fan_out(bench, ground).await).await?;

    let load = bench.load.of_jobs(CHAIN.min(bench.load.jobs));
    let setup = format!("{}, each waits for the one before; {with}", load.text());
    let series = Series::of(Question::Dependants, "chain");
    bench.rate(report, series, setup, async |ground| chain(bench, ground, &load).await).await?;
    Ok(())
}

/// A worker whose job [`GATE`] ends when the gate has a permit, and which counts the others.
struct Gated {
    gate: Arc<Semaphore>,
    tally: Arc<Tally>,
    worker: naq_worker::Worker,
}

impl Gated {
    async fn over(ground: &Ground, jobs: usize) -> Result<Self> {
        let (gate, tally) = (Arc::new(Semaphore::new(0)), Tally::of(jobs));
        let (closed, counted) = (Arc::clone(&gate), Arc::clone(&tally));
        let handler = Called(move |cx: JobContext| {
            if !matches!(cx.args(), Ok(Payload { number: GATE, .. })) {
                counted.count();
                return completed();
            }
            let gate = Arc::clone(&closed);
            Box::pin(async move {
                // It is never closed, and the job is the last thing that would mind.
                drop(gate.acquire().await);
                Verdict::Complete(RawJson::null())
            })
        });
        let worker = ground.worker(SLOTS, &[queue()], Arc::new(handler)).await?;
        Ok(Self { gate, tally, worker })
    }
}

async fn fan_out(bench: &Bench<'_>, ground: &Ground) -> Result<f64> {
    let load = &bench.load;
    let Gated { gate, tally, worker } = Gated::over(ground, load.jobs).await?;
    let work = async {
        let first = ground.jobs.enqueue(load.numbered(GATE)).await?;
        bench.fill(ground, load.jobs, |_| load.job().depends_on([first.id()])).await?;
        gate.add_permits(1);
        tally.counted().await;
        ground.emptied().await?;
        Ok(per_second(load.jobs, tally.elapsed()))
    };
    let (rate, report) = bench.beside(ground, worker, work).await?;
    expect_completed(report.as_ref(), load.jobs + 1)?;
    Ok(rate)
}

async fn chain(bench: &Bench<'_>, ground: &Ground, load: &Load) -> Result<f64> {
    let Gated { gate, tally, worker } = Gated::over(ground, load.jobs).await?;
    let work = async {
        let mut last = ground.jobs.enqueue(load.numbered(GATE)).await?;
        for _ in 0..load.jobs {
            last = ground.jobs.enqueue(load.job().depends_on([last.id()])).await.map_err(CliError::from)?;
        }
        gate.add_permits(1);
        tally.counted().await;
        ground.emptied().await?;
        Ok(tally.rate())
    };
    let (rate, report) = bench.beside(ground, worker, work).await?;
    expect_completed(report.as_ref(), load.jobs + 1)?;
    Ok(rate)
}
