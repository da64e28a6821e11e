//! From SQLite's result codes to [`StorageErrorKind`], with the file's name and what to try.
//!
//! Invariant: the only place that judges SQLite's codes; the kind follows from the code, never from the text.

use std::sync::Arc;

use rusqlite::{ErrorCode, ffi};

use crate::storage::{StorageError, StorageErrorKind};

/// A failure of SQLite that several callers of one transaction share.
pub(crate) type Failure = Arc<rusqlite::Error>;

/// Whether the same statement can succeed when another connection is done.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// The error of an operation on the store at `location`.
pub(crate) fn describe(operation: &'static str, location: &str, failure: Failure) -> StorageError {
    use StorageErrorKind as Kind;
    let extended = match &*failure {
        rusqlite::Error::SqliteFailure(code, _) => code.extended_code,
        _ => 0,
    };
    let (kind, hint) = match failure.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            Kind::Unreachable,
            "another process holds the write lock; look for a stopped program that has the file open",
        ),
        Some(ErrorCode::DiskFull) => (Kind::Full, "free some space on that disk; nothing acknowledged is lost"),
        Some(ErrorCode::SystemIoFailure) if extended == ffi::SQLITE_IOERR_SHMSIZE => {
            (Kind::Full, "free some space on that disk; nothing acknowledged is lost")
        }
        Some(ErrorCode::ReadOnly) => (Kind::ReadOnly, "give this user write permission on the file and its directory"),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            (Kind::Denied, "give this user permission on the file and its directory")
        }
        Some(ErrorCode::CannotOpen) => {
            (Kind::Unreachable, "check that the directory exists and that this user may create files in it")
        }
        Some(ErrorCode::NotADatabase) => {
            (Kind::Incompatible, "this file is not an SQLite database; name another path or move the file away")
        }
        Some(ErrorCode::DatabaseCorrupt) => {
            (Kind::Corrupt, "stop every naq on it, keep a copy, and recover with `sqlite3 FILE .recover`")
        }
        Some(ErrorCode::SystemIoFailure) => (Kind::Unreachable, "the disk reports errors; see the system's log"),
        Some(ErrorCode::TooBig) => (Kind::TooLarge, "store the data elsewhere and pass a reference"),
        Some(_) => (Kind::Refused, ""),
        // Values that no naq wrote.
        None => (Kind::Corrupt, "stop every naq on it, keep a copy, and check it with `naq system doctor`"),
    };
    let error = StorageError::new(kind, operation, format!("{location}: {failure}")).with_source(failure);
    if hint.is_empty() { error } else { error.with_hint(hint) }
}

/// The error of every call after closing.
pub(super) fn closed(operation: &'static str, location: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Closed, operation, format!("{location} is closed"))
}

/// The error of a stored value that no naq wrote.
pub(super) fn foreign_value(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}
