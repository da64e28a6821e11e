//! [`MigrationError`]: why a migration could not begin or go on, and what to try.
//!
//! Invariant: see [`CallError`]. A single thing that cannot be moved is no error: it is left, and named in the report.

use crate::{
    CallError, JobServiceError, JobServiceErrorKind, SchedulerServiceError, SchedulerServiceErrorKind, StorageError,
    StorageErrorKind,
};

/// Why a [`Migration`](super::Migration) ended before its end. Cheap to clone. Calling it again goes on where it stopped.
pub type MigrationError = CallError<MigrationErrorKind>;

/// The kinds of failure that a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MigrationErrorKind {
    /// Source and destination are one store.
    SameStore,
    /// Workers are registered at the source.
    Occupied,
    /// A migration from this source is under way to another destination.
    OtherDestination,
    /// More than [`LEFT_MAX`](super::LEFT_MAX) things cannot be moved.
    TooManyLeft,
    /// The source gave no sign for too long.
    Silent,
    /// What the source holds of a schedule or of the migration itself cannot be used.
    Undecodable,
    /// A store failed.
    Storage(StorageErrorKind),
}

pub(super) fn storage(message: &str) -> impl Fn(StorageError) -> MigrationError {
    move |source| {
        let kind = MigrationErrorKind::Storage(source.kind());
        MigrationError::new(kind, message).with_hint_of(source.hint()).with_source(source)
    }
}

pub(super) fn job(message: &str) -> impl Fn(JobServiceError) -> MigrationError {
    move |source| {
        let kind = match source.kind() {
            JobServiceErrorKind::Storage(kind) => MigrationErrorKind::Storage(kind),
            _ => MigrationErrorKind::Undecodable,
        };
        MigrationError::new(kind, message).with_hint_of(source.hint()).with_source(source)
    }
}

pub(super) fn schedule(message: &str) -> impl Fn(SchedulerServiceError) -> MigrationError {
    move |source| {
        let kind = match source.kind() {
            SchedulerServiceErrorKind::Storage(kind) => MigrationErrorKind::Storage(kind),
            _ => MigrationErrorKind::Undecodable,
        };
        MigrationError::new(kind, message).with_hint_of(source.hint()).with_source(source)
    }
}
