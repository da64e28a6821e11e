//! `queues`: what it costs one worker to serve many queues.
//!
//! Invariant: the same number of jobs, spread evenly. The clock runs from the first start of a handler to the last: to ask a
//! thousand queues whether they are empty would take longer than to run them.

use std::sync::Arc;

use naq_models::QueueName;

use super::{
    Bench, Result,
    ground::Ground,
    report::{Report, Series},
    work::{SLOTS, Tally, looking},
};
use crate::args::Question;

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let load = &bench.load;
    for count in [1, 10, bench.load.many] {
        let setup = format!("{}, one worker with {SLOTS} slots", load.text());
        let series = Series::of(Question::Queues, "run with result").at("queues", count);
        bench.rate(report, series, setup, async |ground| round(bench, ground, count).await).await?;
    }
    Ok(())
}

async fn round(bench: &Bench<'_>, ground: &Ground, count: usize) -> Result<f64> {
    let load = &bench.load;
    let names = (0..count).map(|n| QueueName::new(format!("bench-{n}")).expect("letters and digits"));
    let queues: Vec<QueueName> = names.collect();
    ground.make_queues(load, &queues).await?;
    bench.fill(ground, load.jobs, |n| load.job().queue(&queues[n % count])).await?;
    let tally = Tally::of(load.jobs);
    let handler = Arc::clone(&tally);
    let worker = ground.worker(SLOTS, &queues, looking(move |_| handler.count())).await?;
    let counted = async {
        tally.counted().await;
        Ok(tally.rate())
    };
    Ok(bench.beside(ground, worker, counted).await?.0)
}
