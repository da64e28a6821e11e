//! `run`: how fast what waits is run, with results and without, by the worker's slots.
//!
//! Invariant: everything is stored before the worker starts. The clock runs from the first start of a handler until the store
//! holds no job, so that starting the worker is not counted and nothing that is still to be written is left out.

use naq_services::{NewJob, new_job::secs};

use super::{
    Bench, Result,
    report::{Report, Series, grouped},
};
use crate::args::Question;

/// Jobs at a time.
const SLOTS: [usize; 4] = [1, 10, 100, 500];

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let load = &bench.load;
    let make: [(&str, fn(NewJob) -> NewJob); 2] =
        [("with result", |job| job), ("without result", |job| job.result_ttl(secs(0)))];
    for (what, as_kept) in make {
        for slots in SLOTS {
            let setup = format!("{}, one queue, one worker with {} slots", load.text(), grouped(slots));
            bench
                .rate(report, Series::of(Question::Run, what).at("slots", slots), setup, async |ground| {
                    bench.fill(ground, load.jobs, |_| as_kept(load.job())).await?;
                    bench.drain(ground, slots, load.jobs).await
                })
                .await?;
        }
    }
    Ok(())
}
