//! `depth`: what it costs that very much waits.
//!
//! Invariant: the same number of jobs is run from a short queue and from a long one, the first that the worker gets. The clock
//! runs from the first start of a handler to the last of these, as the long queue does not get empty.

use std::sync::Arc;

use super::{
    Bench, Result,
    ground::{Ground, queue},
    other_process::{self, OtherProcess, Role},
    processes::SETTLE,
    report::{Found, Report, Series, grouped},
    work::{SLOTS, Tally, looking},
};
use crate::args::Question;

/// Jobs that are run at either depth.
const RUN: usize = 20_000;

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let deep = bench.load.depth;
    let run = RUN.min(deep);
    let mut depths = vec![run, deep];
    depths.dedup();
    for pending in depths {
        let load = bench.load.of_jobs(pending);
        let series = |what| Series::of(Question::Depth, what).at("pending", pending);
        bench.tell(series("claim and run"), "enqueue");
        let (rate, memory) = bench
            .on_ground(async |ground| {
                ground.make_queues(&load, &[queue()]).await?;
                bench.fill(ground, pending, |_| load.job()).await?;
                bench.tell(series("claim and run"), "run");
                let rate = first(bench, ground, run).await?;
                let is_seen = pending == deep && bench.place.is_shared() && other_process::is_observable();
                let memory = if is_seen { Some(memory(bench, ground).await?) } else { None };
                Ok((rate, memory))
            })
            .await?;
        let setup =
            format!("{}, of which the first {} are run; one worker with {SLOTS} slots", load.text(), grouped(run));
        report.add(series("claim and run"), setup, Found::rates(vec![rate]).1);
        if let Some(value) = memory {
            let setup = format!(
                "{}, of which {} wait and the slots are taken; a process with {} slots",
                load.text(),
                grouped(pending - run),
                bench.slots()
            );
            report.add(series("worker, resident memory"), setup, Found::Amount { value, unit: "MiB" });
        }
    }
    if !(bench.place.is_shared() && other_process::is_observable()) {
        report.skip(Question::Depth, format!("resident memory: {}", other_process::NONE));
    }
    Ok(())
}

async fn first(bench: &Bench<'_>, ground: &Ground, run: usize) -> Result<f64> {
    let tally = Tally::of(run);
    let handler = Arc::clone(&tally);
    let worker = ground.worker(SLOTS, &[queue()], looking(move |_| handler.count())).await?;
    let begun = async {
        tally.counted().await;
        Ok(tally.rate())
    };
    Ok(bench.beside(ground, worker, begun).await?.0)
}

async fn memory(bench: &Bench<'_>, ground: &Ground) -> Result<f64> {
    let worker = OtherProcess::start(bench, ground, Role::Hold, bench.slots())?;
    bench.pause(SETTLE).await?;
    let resident = worker.resident_mib()?;
    worker.kill().await?;
    Ok(resident)
}
