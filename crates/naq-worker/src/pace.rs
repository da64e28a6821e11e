//! How many jobs to claim ahead of free slots: [`Pace`], learnt from how often jobs end, how long they take and how large
//! they are.
//!
//! Invariant: what is claimed ahead is what will start within [`AHEAD`], by how often jobs ended of late (a worker that has
//! to share its processor must not hoard), so that slow jobs are never held back from others and fast ones come in
//! batches; it is bounded in number, in bytes, and by what waits to be settled. Pure: time is an argument.

use std::time::Duration;

use crate::clock::BootTime;

/// Jobs are claimed ahead for so long.
pub(crate) const AHEAD: Duration = Duration::from_millis(25);
/// At most so many jobs are claimed ahead.
const AHEAD_MAX: usize = 2048;
/// At most so many bytes of bodies are claimed ahead, by the mean size of late.
const AHEAD_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
/// Claimed ahead and finished but not settled: at most so many together.
pub(crate) const UNSETTLED_MAX: usize = 6000;
/// Weight of the newest job in the means.
const NEWEST: f64 = 0.125;
/// The same for the time between two ends, which come in bursts.
const NEWEST_GAP: f64 = 1.0 / 64.0;

/// What is known of the jobs that ran here.
#[derive(Debug)]
pub(crate) struct Pace {
    mean_nanos: Option<f64>,
    /// Between two ends, while there is work.
    gap_nanos: Option<f64>,
    mean_bytes: f64,
    last_finish: BootTime,
}

impl Pace {
    pub(crate) fn new(now: BootTime) -> Self {
        Self { mean_nanos: None, gap_nanos: None, mean_bytes: 0.0, last_finish: now }
    }

    /// A slot was free again `took` after it took a job.
    pub(crate) fn finished(&mut self, took: Duration, now: BootTime) {
        let nanos = took.as_nanos() as f64;
        self.mean_nanos = Some(self.mean_nanos.map_or(nanos, |mean| mean + NEWEST * (nanos - mean)));
        // A gap that is longer than the job holds time without work.
        let gap = nanos.min(now.since(self.last_finish).as_nanos() as f64);
        self.gap_nanos = Some(self.gap_nanos.map_or(nanos, |mean| mean + NEWEST_GAP * (gap - mean)));
        self.last_finish = now;
    }

    /// A body of this size arrived.
    pub(crate) fn arrived(&mut self, bytes: usize) {
        self.mean_bytes += NEWEST * (bytes as f64 - self.mean_bytes);
    }

    pub(crate) fn last_finish(&self) -> BootTime {
        self.last_finish
    }

    /// How many jobs to claim beyond the free slots, while `unsettled` finished ones wait for the store. `full`: every
    /// slot has a job.
    pub(crate) fn ahead(&self, full: bool, unsettled: usize, now: BootTime) -> usize {
        let (Some(mean), Some(gap)) = (self.mean_nanos, self.gap_nanos) else { return 0 };
        let stalled = full && now.since(self.last_finish) >= AHEAD;
        if stalled || mean > AHEAD.as_nanos() as f64 {
            return 0;
        }
        let by_time = (AHEAD.as_nanos() as f64 / gap.max(1.0)) as usize;
        let by_bytes = (AHEAD_BYTES / self.mean_bytes.max(1.0)) as usize;
        by_time.min(by_bytes).min(AHEAD_MAX).min(UNSETTLED_MAX.saturating_sub(unsettled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::tests::at;

    /// After jobs of this length in this many slots that are never idle.
    fn pace(took: Duration, slots: u32) -> Pace {
        let mut pace = Pace::new(at(0));
        let mut now = at(0);
        for _ in 0..1000 {
            now = now.plus(took / slots);
            pace.finished(took, now);
        }
        pace.last_finish = at(1);
        pace
    }

    #[test]
    fn slow_jobs_are_not_claimed_ahead_and_fast_ones_in_hundreds() {
        assert_eq!(Pace::new(at(0)).ahead(false, 0, at(0)), 0, "nothing is known yet");
        assert_eq!(pace(Duration::from_millis(100), 10).ahead(false, 0, at(1)), 0);
        assert!((49..=51).contains(&pace(Duration::from_millis(5), 10).ahead(false, 0, at(1))));
        assert_eq!(pace(Duration::from_micros(10), 10).ahead(false, 0, at(1)), AHEAD_MAX);
    }

    #[test]
    fn a_worker_that_gets_little_of_its_processor_claims_little_ahead() {
        let mut pace = Pace::new(at(0));
        // Each job is quick once it runs, but one ends only every five milliseconds.
        for n in 1..=1000 {
            pace.finished(Duration::from_millis(5), at(0).plus(Duration::from_millis(5 * n)));
        }
        assert!((4..=6).contains(&pace.ahead(false, 0, at(5))));
    }

    #[test]
    fn time_without_work_does_not_count() {
        let mut pace = pace(Duration::from_micros(100), 1);
        let before = pace.ahead(false, 0, at(1));
        pace.finished(Duration::from_micros(100), at(3600));
        assert_eq!(pace.ahead(false, 0, at(3600)), before);
    }

    #[test]
    fn claiming_ahead_stops_when_slots_stall_settlement_lags_or_bodies_are_large() {
        let fast = || pace(Duration::from_micros(10), 10);
        let full = true;
        assert_eq!(fast().ahead(full, 0, at(2)), 0, "no slot came free for long");
        assert_eq!(fast().ahead(!full, 0, at(2)), AHEAD_MAX, "an idle slot is no stall");
        assert_eq!(fast().ahead(full, UNSETTLED_MAX - 7, at(1)), 7);
        assert_eq!(fast().ahead(full, UNSETTLED_MAX + 7, at(1)), 0);
        let mut large = fast();
        for _ in 0..200 {
            large.arrived(1024 * 1024);
        }
        assert_eq!(large.ahead(full, 0, at(1)), 8);
    }

    #[test]
    fn one_slow_job_does_not_end_claiming_ahead_but_a_few_do() {
        let mut pace = pace(Duration::from_micros(10), 10);
        let mut needed = 0;
        while pace.ahead(false, 0, at(1)) > 10 {
            pace.finished(Duration::from_secs(1), at(1));
            needed += 1;
        }
        assert!((1..=3).contains(&needed), "{needed}");
    }
}
