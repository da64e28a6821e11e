//! What a worker did: [`WorkerReport`], and the counters behind it.
//!
//! Invariant: each claimed job is counted once, when its end is certain.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use naq_models::JobStatus;
use serde::Serialize;

/// What became of the jobs that a worker claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct WorkerReport {
    /// Completed with a value.
    pub completed: u64,
    /// Failed for good: a dead letter.
    pub failed: u64,
    /// Cancelled by their handlers.
    pub cancelled: u64,
    /// Failed, to be tried again.
    pub retried: u64,
    /// Put back by their handlers, or because no handler of their kind is known here.
    pub snoozed: u64,
    /// Found to have ended before, or ended elsewhere first, such as by an operator who cancelled them while they ran.
    pub already_ended: u64,
    /// Given back without a run, or without the end of one.
    pub handed_back: u64,
    /// Lost to another worker, because the lease ran out.
    pub lost: u64,
    /// Finished, but the store took no settlement until the worker ended.
    pub unsettled: u64,
    /// Slots that were stuck in a handler when the worker ended.
    pub stuck: usize,
}

/// What a settlement, once it is done, is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed,
    Failed,
    Cancelled,
    Retried,
    Snoozed,
    AlreadyEnded,
}

impl Outcome {
    pub(crate) fn of(status: JobStatus) -> Self {
        match status {
            JobStatus::Completed => Self::Completed,
            JobStatus::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

/// The counters of a running worker.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    outcomes: [AtomicU64; 6],
    pub(crate) handed_back: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) unsettled: AtomicU64,
    pub(crate) stuck: AtomicUsize,
}

impl Tally {
    pub(crate) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn report(&self) -> WorkerReport {
        let of = |outcome: Outcome| self.outcomes[outcome as usize].load(Ordering::Relaxed);
        WorkerReport {
            completed: of(Outcome::Completed),
            failed: of(Outcome::Failed),
            cancelled: of(Outcome::Cancelled),
            retried: of(Outcome::Retried),
            snoozed: of(Outcome::Snoozed),
            already_ended: of(Outcome::AlreadyEnded),
            handed_back: self.handed_back.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            unsettled: self.unsettled.load(Ordering::Relaxed),
            stuck: self.stuck.load(Ordering::Relaxed),
        }
    }
}
