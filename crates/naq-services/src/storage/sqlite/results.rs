//! Results and dead letters.
//!
//! Invariant: a result replaces exactly the revision that its life began from, or none, or one that has expired; so the
//! first of two that end the same life wins. A result that has expired does not exist for any reader, swept or not.

use naq_models::{Address, JobId};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::{
    clock::{Moment, after},
    error::foreign_value,
    rows::{self, revision_in, revision_out, status_number},
    writer::{Tx, note_result},
};
use crate::storage::{DeadLetter, Enqueued, Remains, ResultRecord, StoredResult};

/// Whether a result was the first of its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Won {
    Yes,
    No {
        /// Of the result that was there first.
        revision: i64,
    },
}

/// The statement of a result, prepared once for a batch.
pub(super) struct ResultInsert<'c>(CachedStatement<'c>);

impl<'c> ResultInsert<'c> {
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached(
            "INSERT INTO results (revision, id, queue, status, expires_at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
             ON CONFLICT (id) DO UPDATE SET revision = excluded.revision, queue = excluded.queue, \
             status = excluded.status, expires_at = excluded.expires_at, body = excluded.body \
             WHERE results.revision = ?7 OR results.expires_at <= ?8",
        )
        .map(Self)
    }

    /// Stores the result of a life unless there is one.
    pub(super) fn store(&mut self, tx: &mut Tx<'_>, address: &Address, result: &ResultRecord) -> rusqlite::Result<Won> {
        let queue = tx.queue(&address.queue)?;
        let revision = tx.next_revision();
        let rows = self.0.execute(params![
            revision,
            address.id.as_str(),
            queue,
            status_number(result.status),
            after(tx.now.wall, result.ttl),
            &*result.body,
            revision_in(result.generation),
            tx.now.wall,
        ])?;
        if rows == 1 {
            note_result(tx, &address.id);
            return Ok(Won::Yes);
        }
        let revision = tx
            .conn
            .prepare_cached("SELECT revision FROM results WHERE id = ?1")?
            .query_row([address.id.as_str()], |row| row.get(0))?;
        Ok(Won::No { revision })
    }
}

/// Whether the life that began from `generation` has a result.
pub(super) fn newer_than_generation(tx: &Tx<'_>, id: &JobId, generation: u64) -> rusqlite::Result<bool> {
    let found = tx
        .conn
        .prepare_cached("SELECT revision FROM results WHERE id = ?1 AND expires_at > ?2")?
        .query_row(params![id.as_str(), tx.now.wall], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(found.is_some_and(|revision| revision > revision_in(generation)))
}

/// The live result of an id.
pub(super) fn get(conn: &Connection, now: Moment, id: &JobId) -> rusqlite::Result<Option<StoredResult>> {
    conn.prepare_cached("SELECT revision, body, expires_at FROM results WHERE id = ?1 AND expires_at > ?2")?
        .query_row(params![id.as_str(), now.wall], |row| {
            Ok(StoredResult {
                id: id.clone(),
                body: rows::body(row, 1)?,
                revision: revision_out(row.get(0)?),
                expires_at: rows::time(row, 2)?,
            })
        })
        .optional()
}

/// Keeps a dead letter; a later one of the same id replaces it.
pub(super) fn store_dead_letter(tx: &mut Tx<'_>, letter: &DeadLetter) -> rusqlite::Result<()> {
    let queue = tx.queue(&letter.address.queue)?;
    let error = serde_json::to_string(&letter.error)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    tx.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO dead (id, queue, priority, stored_at, kind, error, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            letter.address.id.as_str(),
            queue,
            letter.address.priority.get(),
            letter.address.stored_at.unix_millis(),
            letter.kind,
            error,
            &*letter.body,
        ])?;
    Ok(())
}

/// Removes the dead letter of an id; `false` if there was none.
pub(super) fn remove_dead_letter(tx: &Tx<'_>, id: &JobId) -> rusqlite::Result<bool> {
    Ok(tx.conn.prepare_cached("DELETE FROM dead WHERE id = ?1")?.execute([id.as_str()])? > 0)
}

/// Stores what is left of jobs of another store.
pub(super) fn store_remains(tx: &mut Tx<'_>, remains: &[Remains]) -> rusqlite::Result<Vec<Enqueued>> {
    remains.iter().map(|remains| store_remains_of(tx, remains)).collect()
}

fn store_remains_of(tx: &mut Tx<'_>, remains: &Remains) -> rusqlite::Result<Enqueued> {
    let Remains { address, result, dead_letter } = remains;
    let is_here: bool = tx
        .conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1) OR EXISTS (SELECT 1 FROM dead WHERE id = ?1 AND ?2)",
        )?
        .query_row(params![address.id.as_str(), result.is_none()], |row| row.get(0))?;
    if is_here || newer_than_generation(tx, &address.id, 0)? {
        return Ok(Enqueued::Duplicate);
    }
    if let Some(letter) = dead_letter {
        store_dead_letter(tx, letter)?;
    }
    if let Some(result) = result {
        ResultInsert::new(tx.conn)?.store(tx, address, result)?;
    }
    Ok(Enqueued::Stored)
}

/// Removes a result of a revision; `false` if it is not there.
pub(super) fn remove(tx: &Tx<'_>, id: &JobId, revision: u64) -> rusqlite::Result<bool> {
    let rows = tx
        .conn
        .prepare_cached("DELETE FROM results WHERE id = ?1 AND revision = ?2")?
        .execute(params![id.as_str(), revision_in(revision)])?;
    Ok(rows > 0)
}

/// The columns that [`dead_letter`] reads, of `dead d JOIN queues q`.
pub(super) const DEAD_COLUMNS: &str = "d.id, q.name, d.priority, d.stored_at, d.kind, d.error, d.body";

pub(super) fn dead_letter(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        address: rows::address(row)?,
        kind: row.get(4)?,
        error: serde_json::from_str(row.get_ref(5)?.as_str()?).map_err(|error| foreign_value(5, error))?,
        body: rows::body(row, 6)?,
    })
}

/// Removes expired results, at most `limit`; returns how many.
pub(super) fn sweep(tx: &Tx<'_>, limit: usize) -> rusqlite::Result<usize> {
    tx.conn
        .prepare_cached(
            "DELETE FROM results WHERE revision IN \
             (SELECT revision FROM results WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )?
        .execute(params![tx.now.wall, i64::try_from(limit).unwrap_or(i64::MAX)])
}
