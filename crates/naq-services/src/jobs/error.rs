//! [`JobServiceError`]: what could not be done to which job or queue, why, and what to try.
//!
//! Invariant: see [`CallError`]; here is which failure of the store means what for a job.

use crate::{CallError, StorageError, StorageErrorKind};

/// Why a call of the [`JobService`](super::JobService) failed. Cheap to clone.
pub type JobServiceError = CallError<JobServiceErrorKind>;

/// The kinds of failure that a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobServiceErrorKind {
    /// What was given is not a job that can be stored: arguments, kind, names, durations.
    InvalidJob,
    /// The job is larger than the configuration or the store allows.
    TooLarge,
    /// There is no such job, or no dead letter of it.
    NotFound,
    /// The job is in a state in which this cannot be done, or changed while it was tried.
    Conflict,
    /// Another job has the unique key, and the producer asked for an error then.
    KeyTaken,
    /// The job keeps no result (`result_ttl = 0`), so that nobody can ask or wait for it.
    NoResultKept,
    /// The result did not come in time. The job goes on.
    TimedOut,
    /// The stored bytes are not a job or result.
    Undecodable,
    /// The store, or naq on any store, cannot do what was asked for; nothing was done.
    Unsupported,
    /// The wire format was not built into this program.
    NotBuilt,
    /// The store failed.
    Storage(StorageErrorKind),
}

impl JobServiceError {
    /// `message` says what could not be done; the store's error says why.
    pub(crate) fn storage(message: impl Into<String>, source: StorageError) -> Self {
        let kind = match source.kind() {
            StorageErrorKind::NotFound => JobServiceErrorKind::NotFound,
            StorageErrorKind::Conflict => JobServiceErrorKind::Conflict,
            StorageErrorKind::TooLarge => JobServiceErrorKind::TooLarge,
            StorageErrorKind::Unsupported => JobServiceErrorKind::Unsupported,
            other => JobServiceErrorKind::Storage(other),
        };
        Self::new(kind, message).with_hint_of(source.hint()).with_source(source)
    }

    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind(),
            JobServiceErrorKind::TimedOut
                | JobServiceErrorKind::Storage(
                    StorageErrorKind::Unreachable | StorageErrorKind::Timeout | StorageErrorKind::Full
                )
        )
    }
}
