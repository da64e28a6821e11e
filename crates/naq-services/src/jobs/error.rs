//! [`JobServiceError`]: what could not be done to which job or queue, why, and what to try.
//!
//! Invariant: callers decide by [`JobServiceErrorKind`], never by text; the cause is kept as the source and is not
//! repeated in the text.

use std::{error::Error, fmt, sync::Arc};

use crate::{StorageError, StorageErrorKind};

/// Why a call of the [`JobService`](super::JobService) failed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct JobServiceError {
    kind: JobServiceErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kinds of failure that a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobServiceErrorKind {
    /// What was given is not a job that can be stored: arguments, kind, names, durations.
    InvalidJob,
    /// The job is larger than the configuration or the store allows.
    TooLarge,
    /// The job asks for something that this version does not do.
    Unsupported,
    /// There is no such job, or no dead letter of it.
    NotFound,
    /// The job is in a state in which this cannot be done, or changed while it was tried.
    Conflict,
    /// The job keeps no result (`result_ttl = 0`), so that nobody can ask or wait for it.
    NoResultKept,
    /// The result did not come in time. The job goes on.
    TimedOut,
    /// The stored bytes are not a job or result.
    Undecodable,
    /// The wire format was not built into this program.
    NotBuilt,
    /// The store failed.
    Storage(StorageErrorKind),
}

impl JobServiceError {
    pub(super) fn new(kind: JobServiceErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// `message` says what could not be done; the store's error says why.
    pub(crate) fn storage(message: impl Into<String>, source: StorageError) -> Self {
        let kind = match source.kind() {
            StorageErrorKind::NotFound => JobServiceErrorKind::NotFound,
            StorageErrorKind::Conflict => JobServiceErrorKind::Conflict,
            StorageErrorKind::TooLarge => JobServiceErrorKind::TooLarge,
            other => JobServiceErrorKind::Storage(other),
        };
        let hint = source.hint().map(str::to_owned);
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
    pub fn kind(&self) -> JobServiceErrorKind {
        self.kind
    }

    /// What the user can try, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            JobServiceErrorKind::TimedOut
                | JobServiceErrorKind::Storage(
                    StorageErrorKind::Unreachable | StorageErrorKind::Timeout | StorageErrorKind::Full
                )
        )
    }
}

impl fmt::Display for JobServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for JobServiceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
