//! `mixed`: what producer and worker keep up together.
//!
//! Invariant: the producer never has more than [`AHEAD`] jobs stored that have not begun, so that what is measured is the
//! rate at which the pair is stable, and not that of a backlog which grows. Its first jobs fill that and do not count.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use super::{
    Bench, Result,
    enqueue::IN_FLIGHT,
    ground::Ground,
    load::Load,
    report::{Report, Series, grouped},
    work::{SLOTS, Tally, expect_completed, looking},
};
use crate::{args::Question, error::CliError};

/// Jobs that the producer may be ahead, at most.
const AHEAD: usize = 1_000;

/// The rate that counts as the capacity of the pair.
pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<f64> {
    let load = &bench.load;
    let setup = format!(
        "{}, one call each, up to {} in flight, the producer at most {} jobs ahead; one worker with {SLOTS} slots in the same \
         process",
        load.text(),
        grouped(IN_FLIGHT),
        grouped(ahead(load)),
    );
    bench
        .rate(report, Series::of(Question::Mixed, "enqueue and run with result"), setup, async |ground| {
            round(bench, ground).await
        })
        .await
}

/// One round: jobs a second, stored and begun.
pub(super) async fn round(bench: &Bench<'_>, ground: &Ground) -> Result<f64> {
    let load = &bench.load;
    let ahead = ahead(load);
    let (room, tally) = (Arc::new(Semaphore::new(ahead)), Tally::after(ahead, load.jobs));
    let (freed, counted) = (Arc::clone(&room), Arc::clone(&tally));
    let handler = looking(move |_| {
        counted.count();
        freed.add_permits(1);
    });
    let worker = ground.worker(SLOTS, &[super::ground::queue()], handler).await?;
    let produced = async {
        let calls = stream::iter(0..load.jobs).map(|_| async {
            room.acquire().await.expect("it is never closed").forget();
            ground.jobs.enqueue(load.job()).await
        });
        calls.buffer_unordered(IN_FLIGHT).try_for_each(|_| std::future::ready(Ok(()))).await.map_err(CliError::from)?;
        tally.counted().await;
        ground.emptied().await
    };
    let ((), report) = bench.beside(ground, worker, produced).await?;
    expect_completed(report.as_ref(), load.jobs)?;
    Ok(tally.rate())
}

/// Of few jobs a part, so that the rest is more than what fills it.
fn ahead(load: &Load) -> usize {
    AHEAD.min(load.jobs / 4)
}
