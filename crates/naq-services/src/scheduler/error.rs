//! [`SchedulerServiceError`]: what could not be done to which schedule, why, and what to try.
//!
//! Invariant: see [`CallError`]; here is how failures of the store and of the job service are told.

use crate::{CallError, JobServiceError, JobServiceErrorKind, StorageError, StorageErrorKind};

/// Why a call of the [`SchedulerService`](super::SchedulerService) failed. Cheap to clone.
pub type SchedulerServiceError = CallError<SchedulerServiceErrorKind>;

/// The kinds of failure that a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchedulerServiceErrorKind {
    /// What was given is no schedule that can be used: expression, zone, period, range of time, id or job.
    Invalid,
    /// There is no such schedule.
    NotFound,
    /// The schedule is in a state in which this cannot be done, or changed while it was tried.
    Conflict,
    /// The stored record cannot be read.
    Undecodable,
    /// The job of the schedule cannot be enqueued.
    Job(JobServiceErrorKind),
    /// The store failed.
    Storage(StorageErrorKind),
}

impl SchedulerServiceError {
    /// `message` says what could not be done; the store's error says why.
    pub(super) fn storage(message: impl Into<String>, source: StorageError) -> Self {
        let kind = SchedulerServiceErrorKind::Storage(source.kind());
        Self::new(kind, message).with_hint_of(source.hint()).with_source(source)
    }

    /// The same for an error of the job service.
    pub(super) fn job(message: impl Into<String>, source: JobServiceError) -> Self {
        let kind = match source.kind() {
            JobServiceErrorKind::Storage(kind) => SchedulerServiceErrorKind::Storage(kind),
            other => SchedulerServiceErrorKind::Job(other),
        };
        Self::new(kind, message).with_hint_of(source.hint()).with_source(source)
    }
}
