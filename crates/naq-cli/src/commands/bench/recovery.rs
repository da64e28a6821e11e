//! `recovery`: a worker is killed with jobs in hand: until all of them have run again elsewhere.
//!
//! Invariant: the killed worker is a process, and the other one runs already. What is measured is mostly `ack_wait`, which stands in
//! the setup: the time for which a silent worker is believed to be alive.

use std::{sync::Arc, time::Instant};

use super::{
    Bench, Result,
    ground::{Ground, queue},
    other_process::{OtherProcess, Role},
    report::{Found, Report, Series},
    work::{Tally, expect_completed, looking},
};
use crate::args::Question;

/// Jobs in hand.
const IN_HAND: usize = 10;

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report) -> Result<()> {
    let series = Series::of(Question::Recovery, "worker killed, until its jobs have run");
    let lease = bench.session.config().queues.ack_wait_of(&queue());
    bench.tell(series, &format!("about {} s", lease.as_secs()));
    let value = bench.on_ground(async |ground| round(bench, ground).await).await?;
    let setup = format!("{IN_HAND} jobs in hand, ack_wait {} s, another worker runs", lease.as_secs_f64());
    report.add(series, setup, Found::Amount { value, unit: "s" });
    Ok(())
}

async fn round(bench: &Bench<'_>, ground: &Ground) -> Result<f64> {
    ground.make_queues(&bench.load, &[queue()]).await?;
    let mut doomed = OtherProcess::start(bench, ground, Role::Hold, IN_HAND)?;
    bench.fill(ground, IN_HAND, |_| bench.load.job()).await?;
    for _ in 0..IN_HAND {
        bench.unless_stopped(doomed.begun()).await?;
    }
    let tally = Tally::of(IN_HAND);
    let handler = Arc::clone(&tally);
    let worker = ground.worker(IN_HAND, &[queue()], looking(move |_| handler.count())).await?;
    let recovered = async {
        let killed = Instant::now();
        doomed.kill().await?;
        tally.counted().await;
        ground.emptied().await?;
        Ok(killed.elapsed().as_secs_f64())
    };
    let (took, report) = bench.beside(ground, worker, recovered).await?;
    expect_completed(report.as_ref(), IN_HAND)?;
    Ok(took)
}
