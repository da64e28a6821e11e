//! Two ways to do the same, in turn.
//!
//! Invariant: each round runs both ways, and the next round in the other order, so that what drifts (the disk, other
//! processes, the clock of the processor) falls on both alike. The ratio is the median of the rounds' ratios.

use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What one turn of one side took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    /// Of the processor: what all threads of this process ran, those that have ended too.
    pub(crate) cpu: Duration,
}

/// The moment from which a turn counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    at: Instant,
    ran: Duration,
}

impl Start {
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), ran: ran() }
    }

    pub(crate) fn took(self) -> Took {
        Took { wall: self.at.elapsed(), cpu: ran() - self.ran }
    }
}

fn ran() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("a process runs for no less than nothing")
}

/// What the rounds gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Compared {
    /// Jobs a second, the median of the rounds.
    pub(crate) naq: f64,
    pub(crate) bare: f64,
    /// Microseconds of the processor for a job, the median of the rounds.
    pub(crate) naq_cpu_us: f64,
    pub(crate) bare_cpu_us: f64,
    /// Median, lowest and highest of the rounds' ratios, naq to bare.
    pub(crate) ratio: f64,
    pub(crate) ratio_low: f64,
    pub(crate) ratio_high: f64,
    /// All of them, in the order in which they were measured.
    pub(crate) ratios: Vec<f64>,
    pub(crate) rounds: usize,
    pub(crate) jobs_per_round: usize,
}

/// Runs both sides `rounds` times after one round that does not count. Each gets the number of its turn, unique over
/// both sides, and returns what `jobs` jobs took.
pub(crate) async fn compare(
    what: &str,
    rounds: usize,
    jobs: usize,
    mut naq: impl AsyncFnMut(usize) -> Result<Took>,
    mut bare: impl AsyncFnMut(usize) -> Result<Took>,
) -> Result<Compared> {
    let rate = |took: &Took| jobs as f64 / took.wall.as_secs_f64();
    let cpu_us = |took: &Took| took.cpu.as_secs_f64() * 1e6 / jobs as f64;
    let mut turns = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (first, second) = (2 * round, 2 * round + 1);
        let (naq_took, bare_took) = if round % 2 == 0 {
            let took = naq(first).await?;
            (took, bare(second).await?)
        } else {
            let took = bare(first).await?;
            (naq(second).await?, took)
        };
        eprintln!("  {what}: round {round}: naq {:.0}/s, bare {:.0}/s", rate(&naq_took), rate(&bare_took));
        if round > 0 {
            turns.0.push(naq_took);
            turns.1.push(bare_took);
        }
    }
    let ratios: Vec<f64> = turns.0.iter().zip(&turns.1).map(|(naq, bare)| rate(naq) / rate(bare)).collect();
    Ok(Compared {
        naq: median(&turns.0, rate),
        bare: median(&turns.1, rate),
        naq_cpu_us: median(&turns.0, cpu_us),
        bare_cpu_us: median(&turns.1, cpu_us),
        ratio: quantile(&ratios, 0.5),
        ratio_low: quantile(&ratios, 0.0),
        ratio_high: quantile(&ratios, 1.0),
        ratios,
        rounds,
        jobs_per_round: jobs,
    })
}

fn median(turns: &[Took], value: impl Fn(&Took) -> f64) -> f64 {
    let values: Vec<f64> = turns.iter().map(value).collect();
    quantile(&values, 0.5)
}

/// The value at a share of the sorted values, 0 to 1, between neighbours where it falls between them.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share * last as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}
