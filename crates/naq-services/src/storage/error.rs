//! [`StorageError`]: what failed, against which store, of what kind, and what to try.
//!
//! Invariant: callers decide by [`StorageErrorKind`], never by text; the source is kept; no secret is in the text.

use std::{error::Error, fmt};

/// Why a seam call failed.
#[derive(Debug)]
pub struct StorageError {
    kind: StorageErrorKind,
    operation: &'static str,
    detail: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of failure that a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// No such job, result, queue or key.
    NotFound,
    /// Something else changed it first.
    Conflict,
    /// The store cannot be reached now.
    Unreachable,
    /// The store did not answer in time; the effect is unknown.
    Timeout,
    /// The store refused the credentials or the permission.
    Denied,
    /// The body is over the store's limit.
    TooLarge,
    /// No space is left where the store keeps its data.
    Full,
    /// The store cannot be written to.
    ReadOnly,
    /// What lies there is not a naq store, or a newer one, or is set up in a way that breaks a promise.
    Incompatible,
    /// What lies there is damaged.
    Corrupt,
    /// The store is closed.
    Closed,
    /// This store cannot do what was asked for, and has done nothing.
    Unsupported,
    /// The store refused the call for good, for a reason that is in the text.
    Refused,
}

impl StorageError {
    /// An error of a kind, in an operation (`enqueue`, `open`), with what happened in words.
    pub fn new(kind: StorageErrorKind, operation: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, operation, detail: detail.into(), hint: None, source: None }
    }

    /// Adds what the user can try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> StorageErrorKind {
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
        matches!(self.kind, StorageErrorKind::Unreachable | StorageErrorKind::Timeout | StorageErrorKind::Full)
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.detail)
    }
}

impl Error for StorageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
