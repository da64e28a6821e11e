//! [`SchedulerServiceError`]: what could not be done to which schedule, why, and what to try.
//!
//! Invariant: callers decide by [`SchedulerServiceErrorKind`], never by text; the cause is kept as the source.

use std::{error::Error, fmt, sync::Arc};

use crate::{JobServiceError, JobServiceErrorKind, StorageError, StorageErrorKind};

/// Why a call of the [`SchedulerService`](super::SchedulerService) failed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SchedulerServiceError {
    kind: SchedulerServiceErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

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
    pub(super) fn new(kind: SchedulerServiceErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// `message` says what could not be done; the store's error says why.
    pub(super) fn storage(message: impl Into<String>, source: StorageError) -> Self {
        let hint = source.hint().map(str::to_owned);
        let kind = SchedulerServiceErrorKind::Storage(source.kind());
        Self { kind, message: message.into(), hint, source: Some(Arc::new(source)) }
    }

    /// The same for an error of the job service.
    pub(super) fn job(message: impl Into<String>, source: JobServiceError) -> Self {
        let hint = source.hint().map(str::to_owned);
        let kind = match source.kind() {
            JobServiceErrorKind::Storage(kind) => SchedulerServiceErrorKind::Storage(kind),
            other => SchedulerServiceErrorKind::Job(other),
        };
        Self { kind, message: message.into(), hint, source: Some(Arc::new(source)) }
    }

    #[must_use]
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(super) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> SchedulerServiceErrorKind {
        self.kind
    }

    /// What the user can try, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for SchedulerServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for SchedulerServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
