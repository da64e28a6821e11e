//! The tables, and how a file comes to have them.
//!
//! Invariant: `application_id` says that a file is naq's and `user_version` counts the migrations it has seen; migrations
//! only go forward, each in one transaction with its number. A file of a later naq or of another program is refused
//! before anything is written to it.
//!
//! Times are milliseconds: `*_at` since 1970, `lease_until` since boot `boot`. A job has one row in `jobs` from its
//! enqueue to its end, whatever it waits for; `seq` is its place in its lane, and promotion gives it a new one. A queued
//! job has exactly one row in `ready` or in `leases`, both narrow and keyed by integers: they change at every claim.

use rusqlite::{Connection, TransactionBehavior};

use crate::storage::{StorageError, StorageErrorKind};

/// "naq1", so that `file` and people can tell.
pub(super) const APPLICATION_ID: i64 = 0x6e61_7131;

/// `user_version` after migration n is n + 1. Never edit one that was released; append.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql"), include_str!("schema_2.sql")];

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    application_id: i64,
    version: i64,
    tables: i64,
}

fn look(conn: &Connection) -> rusqlite::Result<Found> {
    let number = |sql: &str| conn.query_row(sql, [], |row| row.get(0));
    Ok(Found {
        application_id: number("PRAGMA application_id")?,
        version: number("PRAGMA user_version")?,
        tables: number("SELECT count(*) FROM sqlite_schema")?,
    })
}

fn judge(found: Found, location: &str) -> Result<(), StorageError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let refuse = |text: String, hint: &'static str| {
        Err(StorageError::new(StorageErrorKind::Incompatible, "open", text).with_hint(hint))
    };
    if found.application_id != APPLICATION_ID && (found.application_id != 0 || found.tables > 0) {
        return refuse(
            format!("{location} is the database of another program"),
            "name another path; naq creates the file itself",
        );
    }
    if found.version > known {
        return refuse(
            format!("{location} was written by a newer naq (schema {}, this one knows up to {known})", found.version),
            "update this program; older ones cannot read the file",
        );
    }
    Ok(())
}

/// Refuses what is not for this program. The outer error is SQLite's, the inner one a refusal.
pub(super) fn check(conn: &Connection, location: &str) -> rusqlite::Result<Result<(), StorageError>> {
    Ok(judge(look_at_once(conn)?, location))
}

/// In one transaction: a file that another process is just making has neither its tables nor its number, or both.
fn look_at_once(conn: &Connection) -> rusqlite::Result<Found> {
    let tx = conn.unchecked_transaction()?;
    look(&tx)
}

/// Refuses what is not for this program, then brings the tables up to date.
///
/// The outer error is SQLite's, the inner one a refusal.
pub(super) fn prepare(conn: &mut Connection, location: &str) -> rusqlite::Result<Result<(), StorageError>> {
    let found = look_at_once(conn)?;
    if let Err(refusal) = judge(found, location) {
        return Ok(Err(refusal));
    }
    if usize::try_from(found.version) == Ok(MIGRATIONS.len()) && found.application_id == APPLICATION_ID {
        return Ok(Ok(()));
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have migrated meanwhile.
    let found = look(&tx)?;
    if let Err(refusal) = judge(found, location) {
        return Ok(Err(refusal));
    }
    let seen = usize::try_from(found.version).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(seen) {
        tx.execute_batch(migration)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))?;
    tx.commit()?;
    Ok(Ok(()))
}
