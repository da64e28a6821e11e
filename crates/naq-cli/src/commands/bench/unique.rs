//! `unique`: what a unique key costs whoever stores the job.
//!
//! Invariant: every key is new, as that is the usual case; beside `enqueue`, in bulk, it shows the price of the key.

use std::time::Instant;

use super::{
    Bench, Result,
    report::{Report, Series, grouped},
    work::{CHUNK, per_second},
};
use crate::args::Question;

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let load = &bench.load;
    let setup = format!(
        "{}, each with a key of its own, enqueue_many of {} at once",
        load.text(),
        grouped(load.jobs.min(CHUNK))
    );
    let series = Series::of(Question::Unique, "enqueue in bulk");
    bench
        .rate(report, series, setup, async |ground| {
            let begun = Instant::now();
            bench.fill(ground, load.jobs, |number| load.job().unique(format!("key-{number}"))).await?;
            Ok(per_second(load.jobs, begun.elapsed()))
        })
        .await?;
    Ok(())
}
