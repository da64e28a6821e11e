//! How many jobs to claim ahead of free slots: [`Pace`], learnt from how long jobs take and how large they are.
//!
//! Invariant: what is claimed ahead is what will start within [`AHEAD`], so that slow jobs are never hoarded and fast ones
//! come in batches; it is bounded in number, in bytes, and by what waits to be settled. Pure: time is an argument.

use std::time::Duration;

use crate::clock::BootTime;

/// Jobs are claimed ahead for so long.
pub(crate) const AHEAD: Duration = Duration::from_millis(25);
/// At most so many jobs are claimed ahead.
const AHEAD_MAX: usize = 1024;
/// At most so many bytes of bodies are claimed ahead, by the mean size of late.
const AHEAD_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
/// Claimed ahead and finished but not settled: at most so many together.
pub(crate) const UNSETTLED_MAX: usize = 2048;
/// Weight of the newest job in the means.
const NEWEST: f64 = 0.125;

/// What is known of the jobs that ran here.
#[derive(Debug)]
pub(crate) struct Pace {
    concurrency: usize,
    mean_nanos: Option<f64>,
    mean_bytes: f64,
    last_finish: BootTime,
}

impl Pace {
    pub(crate) fn new(concurrency: usize, now: BootTime) -> Self {
        Self { concurrency, mean_nanos: None, mean_bytes: 0.0, last_finish: now }
    }

    /// A slot was free again `took` after it took a job.
    pub(crate) fn finished(&mut self, took: Duration, now: BootTime) {
        let nanos = took.as_nanos() as f64;
        self.mean_nanos = Some(self.mean_nanos.map_or(nanos, |mean| mean + NEWEST * (nanos - mean)));
        self.last_finish = now;
    }

    /// A body of this size arrived.
    pub(crate) fn arrived(&mut self, bytes: usize) {
        self.mean_bytes += NEWEST * (bytes as f64 - self.mean_bytes);
    }

    /// How long a job takes, if one has ended yet.
    pub(crate) fn mean(&self) -> Option<Duration> {
        self.mean_nanos.map(|nanos| Duration::from_nanos(nanos as u64))
    }

    pub(crate) fn last_finish(&self) -> BootTime {
        self.last_finish
    }

    /// How many jobs to claim beyond the free slots, while `unsettled` finished ones wait for the store. `full`: every
    /// slot has a job.
    pub(crate) fn ahead(&self, full: bool, unsettled: usize, now: BootTime) -> usize {
        let Some(mean) = self.mean_nanos else { return 0 };
        let stalled = full && now.since(self.last_finish) >= AHEAD;
        if stalled || mean > AHEAD.as_nanos() as f64 {
            return 0;
        }
        let by_time = (self.concurrency as f64 * AHEAD.as_nanos() as f64 / mean.max(1.0)) as usize;
        let by_bytes = (AHEAD_BYTES / self.mean_bytes.max(1.0)) as usize;
        by_time.min(by_bytes).min(AHEAD_MAX).min(UNSETTLED_MAX.saturating_sub(unsettled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::tests::at;

    fn pace(took: Duration) -> Pace {
        let mut pace = Pace::new(10, at(0));
        for _ in 0..100 {
            pace.finished(took, at(1));
        }
        pace
    }

    #[test]
    fn slow_jobs_are_not_claimed_ahead_and_fast_ones_in_hundreds() {
        assert_eq!(Pace::new(10, at(0)).ahead(false, 0, at(0)), 0, "nothing is known yet");
        assert_eq!(pace(Duration::from_millis(100)).ahead(false, 0, at(1)), 0);
        assert_eq!(pace(Duration::from_millis(5)).ahead(false, 0, at(1)), 50);
        assert_eq!(pace(Duration::from_micros(10)).ahead(false, 0, at(1)), AHEAD_MAX);
    }

    #[test]
    fn claiming_ahead_stops_when_slots_stall_settlement_lags_or_bodies_are_large() {
        let fast = Duration::from_micros(10);
        let full = true;
        assert_eq!(pace(fast).ahead(full, 0, at(2)), 0, "no slot came free for long");
        assert_eq!(pace(fast).ahead(!full, 0, at(2)), AHEAD_MAX, "an idle slot is no stall");
        assert_eq!(pace(fast).ahead(full, UNSETTLED_MAX - 7, at(1)), 7);
        assert_eq!(pace(fast).ahead(full, UNSETTLED_MAX + 7, at(1)), 0);
        let mut large = pace(fast);
        for _ in 0..200 {
            large.arrived(1024 * 1024);
        }
        assert_eq!(large.ahead(full, 0, at(1)), 8);
    }

    #[test]
    fn one_slow_job_does_not_end_claiming_ahead_but_a_few_do() {
        let mut pace = pace(Duration::from_micros(10));
        let mut needed = 0;
        while pace.ahead(false, 0, at(1)) > 10 {
            pace.finished(Duration::from_secs(1), at(1));
            needed += 1;
        }
        assert!((1..=3).contains(&needed), "{needed}");
    }
}
