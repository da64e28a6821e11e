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
    for (what, ttl) in [("with result", None), ("without result", Some(secs(0)))] {
        let job = || ttl.into_iter().fold(load.job(), NewJob::result_ttl);
        for slots in SLOTS {
            let setup = format!("{}, one queue, one worker with {} slots", load.text(), grouped(slots));
            bench
                .rate(report, Series::of(Question::Run, what).at("slots", slots), setup, async |ground| {
                    bench.fill(ground, load.jobs, |_| job()).await?;
                    bench.drain(ground, slots, load.jobs).await
                })
                .await?;
        }
    }
    Ok(())
}
