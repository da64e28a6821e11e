//! `payload`: storing in bulk and running, by the size of the arguments.
//!
//! Invariant: of large jobs there are fewer, so that a round moves at most [`BYTES`]; a size that the store does not take is
//! reported as skipped.

use super::{
    Bench, Result, enqueue,
    report::{Report, Series, grouped},
    work::SLOTS,
};
use crate::args::Question;

const SIZES: [usize; 3] = [64, 1 << 10, 64 << 10];
/// Of all arguments of a round together.
const BYTES: usize = 64 << 20;
/// What an envelope has around its arguments, generously.
const ENVELOPE: usize = 4 << 10;

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let limit = bench.on_ground(async |ground| Ok(ground.max_body())).await?;
    for size in SIZES {
        if size + ENVELOPE > limit {
            let why =
                format!("{} B of arguments are more than a job may have here: {} B", grouped(size), grouped(limit));
            report.skip(Question::Payload, why);
            continue;
        }
        let load = bench.load.sized(size).of_jobs(bench.load.jobs.min(BYTES / size));
        let series = |what| Series::of(Question::Payload, what).at("bytes", size);
        enqueue::bulk(bench, report, series("enqueue in bulk"), &load).await?;
        let setup = format!("{}, one queue, one worker with {SLOTS} slots", load.text());
        bench
            .rate(report, series("run with result"), setup, async |ground| {
                bench.fill(ground, load.jobs, |_| load.job()).await?;
                bench.drain(ground, SLOTS, load.jobs).await
            })
            .await?;
    }
    Ok(())
}
