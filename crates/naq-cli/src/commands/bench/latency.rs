//! `latency`: from enqueue to start, and from enqueue to result, while jobs arrive at a given rate.
//!
//! Invariant: open loop. Each job has an intended time, the begin plus its number times the gap, which does not depend on what
//! became of those before it, and its latency counts from there, whenever its call was really made. So a store or producer that
//! stands still for a second delays all the jobs of that second, and each is counted: nothing is omitted because the
//! measurement waited with it (coordinated omission). Times are of one process and one monotonic clock.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use naq_services::{JobHandle, JobService, new_job::secs};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Bench, Result,
    ground::Ground,
    load::Payload,
    mixed,
    report::{Found, Latency, Report, Series},
    work::{SLOTS, Tally, expect_completed, looking},
};
use crate::{args::Question, error::CliError};

/// Shares of the capacity, in percent.
const SHARES: [usize; 3] = [10, 50, 90];
/// Waiting for a result is work of its own; so many a second are waited for, evenly spread.
const AWAITED_PER_S: f64 = 200.0;
/// From the begin of a round to the first intended time.
const LEAD: Duration = Duration::from_millis(50);
/// For the result of one job.
const PATIENCE: Duration = secs(120);

pub(super) async fn measure(bench: &Bench<'_>, report: &mut Report, capacity: Option<f64>) -> Result<()> {
    let capacity = match capacity {
        Some(capacity) => capacity,
        None => {
            bench.tell(Series::of(Question::Latency, "capacity"), "a round of mixed");
            bench
                .on_ground(async |ground| {
                    ground.make_queues(&bench.load, &[super::ground::queue()]).await?;
                    mixed::round(bench, ground).await
                })
                .await?
        }
    };
    for share in SHARES {
        let arrivals = Arrivals::of(capacity * share as f64 / 100.0, bench.load.watch, bench.load.jobs);
        let series = |what| Series::of(Question::Latency, what).at("% of capacity", share);
        bench.tell(series("enqueue to start"), &format!("{} jobs", arrivals.count));
        let taken = bench.on_ground(async |ground| round(bench, ground, &arrivals).await).await?;
        // Without the numbers that differ from store to store: those stand beside the latencies.
        let setup = format!(
            "{}, or as many as arrive in {} s, evenly, at {share} % of the rate that mixed keeps up; one worker with {SLOTS} slots in the same process",
            bench.load.text(),
            bench.load.watch.as_secs(),
        );
        for (what, latencies) in [("enqueue to start", taken.to_start), ("enqueue to result", taken.to_result)] {
            report.add(series(what), setup.clone(), Found::Latency(summarize(latencies, arrivals.per_s)));
        }
    }
    Ok(())
}

/// When jobs are meant to be enqueued.
#[derive(Debug, Clone, Copy)]
struct Arrivals {
    per_s: f64,
    count: usize,
}

impl Arrivals {
    /// What arrives in a time, at most so many.
    fn of(per_s: f64, during: Duration, limit: usize) -> Self {
        let count = (per_s * during.as_secs_f64()).ceil() as usize;
        Self { per_s, count: count.clamp(1, limit) }
    }

    /// From the first to that of a number.
    fn offset(&self, number: usize) -> Duration {
        Duration::from_secs_f64(number as f64 / self.per_s)
    }

    /// How long after its intended time something happened to a job; zero if before.
    fn latency(&self, begin: Instant, number: usize, happened: Instant) -> Duration {
        happened.saturating_duration_since(begin + self.offset(number))
    }

    /// Whether a job's result is waited for.
    fn is_awaited(&self, number: usize) -> bool {
        number.is_multiple_of(((self.per_s / AWAITED_PER_S).ceil() as usize).max(1))
    }
}

struct Taken {
    to_start: Vec<Duration>,
    to_result: Vec<Duration>,
}

async fn round(bench: &Bench<'_>, ground: &Ground, arrivals: &Arrivals) -> Result<Taken> {
    ground.make_queues(&bench.load, &[super::ground::queue()]).await?;
    // One job before those that count, so that connections are made and the worker stands ready.
    let all = arrivals.count + 1;
    let starts: Arc<Vec<OnceLock<Instant>>> = Arc::new((0..all).map(|_| OnceLock::new()).collect());
    let tally = Tally::of(all);
    let (begun, counted) = (Arc::clone(&starts), Arc::clone(&tally));
    let handler = looking(move |cx| {
        let now = Instant::now();
        if let Ok(Payload { number, .. }) = cx.args()
            && let Some(start) = begun.get(number)
        {
            start.get_or_init(|| now);
        }
        counted.count();
    });
    let worker = ground.worker(SLOTS, &[super::ground::queue()], handler).await?;
    let offered = async {
        ground.jobs.enqueue(bench.load.numbered(arrivals.count)).await?.outcome(PATIENCE).await?;
        let begin = Instant::now() + LEAD;
        let to_result = offer(bench, &ground.jobs, arrivals, begin).await?;
        tally.counted().await;
        ground.emptied().await?;
        let started = starts.iter().take(arrivals.count).enumerate();
        let to_start = started.filter_map(|(n, start)| Some(arrivals.latency(begin, n, *start.get()?))).collect();
        Ok(Taken { to_start, to_result })
    };
    let (taken, report) = bench.beside(ground, worker, offered).await?;
    expect_completed(report.as_ref(), all)?;
    Ok(taken)
}

/// Enqueues each job at its time, whatever became of those before it; how long the awaited results took.
async fn offer(bench: &Bench<'_>, jobs: &JobService, arrivals: &Arrivals, begin: Instant) -> Result<Vec<Duration>> {
    let (sender, mut due) = mpsc::channel(arrivals.count);
    let (count, clock) = (arrivals.count, *arrivals);
    let mut calls: JoinSet<Result<Option<Duration>>> = JoinSet::new();
    // A thread, because the timers of the runtime go by whole milliseconds. It ends when nobody listens any more.
    calls.spawn_blocking(move || {
        for number in 0..count {
            thread::sleep((begin + clock.offset(number)).saturating_duration_since(Instant::now()));
            if sender.blocking_send(number).is_err() {
                break;
            }
        }
        Ok(None)
    });
    while let Some(number) = due.recv().await {
        let (job, jobs, arrivals) = (bench.load.numbered(number), jobs.clone(), *arrivals);
        calls.spawn(async move {
            let handle: JobHandle<_> = jobs.enqueue(job).await?;
            if !arrivals.is_awaited(number) {
                return Ok(None);
            }
            handle.outcome(PATIENCE).await?;
            Ok(Some(arrivals.latency(begin, number, Instant::now())))
        });
    }
    let mut latencies = Vec::new();
    while let Some(call) = calls.join_next().await {
        let call = call.map_err(|e| CliError::failed(format!("a producer's task ended: {e}")))?;
        latencies.extend(call?);
    }
    Ok(latencies)
}

fn summarize(mut latencies: Vec<Duration>, offered_per_s: f64) -> Latency {
    latencies.sort_unstable();
    let millis = |share| quantile(&latencies, share).as_secs_f64() * 1000.0;
    Latency {
        p50_ms: millis(0.5),
        p99_ms: millis(0.99),
        p999_ms: millis(0.999),
        max_ms: millis(1.0),
        samples: latencies.len(),
        offered_per_s,
    }
}

/// The smallest of sorted values that is not exceeded by a share of them (0 to 1): one that was measured.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn arrivals_are_even_and_bounded() {
        let arrivals = Arrivals::of(200.0, secs(5), 20_000);
        assert_eq!((arrivals.count, arrivals.offset(0), arrivals.offset(3)), (1_000, Duration::ZERO, 15 * MS));
        assert_eq!(Arrivals::of(200.0, secs(5), 30).count, 30);
        assert_eq!(Arrivals::of(0.01, secs(5), 30).count, 1);
    }

    #[test]
    fn at_most_so_many_results_a_second_are_awaited() {
        for (per_s, awaited) in [(100.0, 1_000), (200.0, 1_000), (201.0, 500), (10_000.0, 20)] {
            let arrivals = Arrivals { per_s, count: 1_000 };
            assert_eq!((0..1_000).filter(|n| arrivals.is_awaited(*n)).count(), awaited, "{per_s}");
        }
    }

    /// A store that answers in a millisecond and stands still for half of the time: a loop that waits for each answer sees one
    /// slow job in a thousand, and users see half of theirs wait.
    #[test]
    fn jobs_that_were_due_during_a_stall_are_all_counted() {
        let (begin, arrivals) = (Instant::now(), Arrivals { per_s: 1_000.0, count: 2_000 });
        let (stands, goes_on) = (begin + 500 * MS, begin + 1_500 * MS);
        let answered = |number| {
            let due = begin + arrivals.offset(number);
            if due >= stands && due < goes_on { goes_on } else { due + MS }
        };
        let latencies: Vec<_> = (0..2_000).map(|n| arrivals.latency(begin, n, answered(n))).collect();
        assert_eq!(latencies.iter().filter(|latency| **latency > 2 * MS).count(), 998);
        let Latency { p50_ms, p99_ms, max_ms, samples, .. } = summarize(latencies, 1_000.0);
        assert_eq!((p99_ms.round(), max_ms.round(), samples), (980.0, 1_000.0, 2_000));
        assert!((1.0..=3.0).contains(&p50_ms), "{p50_ms}");
    }

    #[test]
    fn what_began_early_took_no_time() {
        let begin = Instant::now() + secs(10);
        let arrivals = Arrivals { per_s: 1.0, count: 1 };
        assert_eq!(arrivals.latency(begin, 0, Instant::now()), Duration::ZERO);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<_> = (1..=1_000).map(|n| n * MS).collect();
        for (share, millis) in [(0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1_000), (0.0, 1)] {
            assert_eq!(quantile(&values, share), millis * MS, "{share}");
        }
        assert_eq!(quantile(&values[..1], 0.999), MS);
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
