//! Two ways to do the same, in turn.
//!
//! Invariant: each round runs both ways, and the next round in the other order, so that what drifts (the disk, other
//! processes, the clock of the processor) falls on both alike. The ratio is the median of the rounds' ratios.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

/// What the rounds gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Compared {
    /// Jobs a second, the median of the rounds.
    pub(crate) naq: f64,
    pub(crate) bare: f64,
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
/// both sides, and returns how long `jobs` jobs took.
pub(crate) async fn compare(
    what: &str,
    rounds: usize,
    jobs: usize,
    mut naq: impl AsyncFnMut(usize) -> Result<Duration>,
    mut bare: impl AsyncFnMut(usize) -> Result<Duration>,
) -> Result<Compared> {
    let mut rates = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (first, second) = (2 * round, 2 * round + 1);
        let (naq_took, bare_took) = if round % 2 == 0 {
            let took = naq(first).await?;
            (took, bare(second).await?)
        } else {
            let took = bare(first).await?;
            (naq(second).await?, took)
        };
        let rate = |took: Duration| jobs as f64 / took.as_secs_f64();
        eprintln!("  {what}: round {round}: naq {:.0}/s, bare {:.0}/s", rate(naq_took), rate(bare_took));
        if round > 0 {
            rates.0.push(rate(naq_took));
            rates.1.push(rate(bare_took));
        }
    }
    let ratios: Vec<f64> = rates.0.iter().zip(&rates.1).map(|(naq, bare)| naq / bare).collect();
    Ok(Compared {
        naq: quantile(&rates.0, 0.5),
        bare: quantile(&rates.1, 0.5),
        ratio: quantile(&ratios, 0.5),
        ratio_low: quantile(&ratios, 0.0),
        ratio_high: quantile(&ratios, 1.0),
        ratios,
        rounds,
        jobs_per_round: jobs,
    })
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
