//! `delayed`: jobs that are all due at the same time: how fast they are moved into their queue and run.
//!
//! Invariant: all are stored before they are due, and a worker that leads stands ready. The clock runs from the first start of
//! a handler until the store holds no job.

use std::time::Duration;

use naq_services::new_job::secs;

use super::{
    Bench, Result,
    ground::Ground,
    report::{Report, Series},
    work::SLOTS,
};
use crate::{args::Question, error::CliError};

/// To store one job before all are due; doubled if that was not enough.
const EACH: Duration = Duration::from_micros(50);
/// For the worker to start and to lead.
const LEAD: Duration = secs(2);
const TRIES: u32 = 5;

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let load = &bench.load;
    let setup = format!("{}, all due at once, with result; one worker with {SLOTS} slots, which leads", load.text());
    let series = Series::of(Question::Delayed, "promote and run");
    bench.rate(report, series, setup, async |ground| round(bench, ground).await).await?;
    Ok(())
}

async fn round(bench: &Bench<'_>, ground: &Ground) -> Result<f64> {
    let load = &bench.load;
    let storage = ground.jobs.storage();
    let jobs = u32::try_from(load.jobs).unwrap_or(u32::MAX);
    for try_number in 0..TRIES {
        let filling = EACH * jobs * 2u32.pow(try_number);
        let due = storage.now().await?.saturating_add(LEAD + filling);
        bench.fill(ground, load.jobs, |_| load.job().at(due)).await?;
        let in_time = storage.now().await?.saturating_add(LEAD / 2) < due;
        let rate = bench.drain(ground, SLOTS, load.jobs).await?;
        if in_time {
            return Ok(rate);
        }
    }
    Err(CliError::failed("the jobs were due before all of them were stored"))
}
