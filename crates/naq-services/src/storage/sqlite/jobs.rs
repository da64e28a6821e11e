//! Jobs that enter, move and end without a worker: enqueue, requeue, reschedule, promotion, end.
//!
//! Invariant: an id has at most one row in `jobs`. Each function here runs inside one transaction and does all of a move
//! or nothing; whether a move is due or wise was decided above.

use std::{collections::HashSet, time::Duration};

use naq_models::{JobId, JobStatus, Priority};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::{
    kv,
    results::{self, ResultInsert, Won},
    rows::{self, QUEUED, ready_key, revision_in, status_number},
    writer::Tx,
};
use crate::storage::{Bucket, Ended, Ending, Enqueued, EnqueuedAll, Entry, Promoted, Promotion};

/// How long the workers can see that a job of theirs was ended elsewhere. Its worker looks within milliseconds; one that
/// does not look this long has lost its lease, and its settlement finds the job gone in any case.
const CANCEL_INTENT_TTL: Duration = Duration::from_secs(60);

/// The statements of an entry.
struct Inserts<'c> {
    job: CachedStatement<'c>,
    ready: CachedStatement<'c>,
}

impl<'c> Inserts<'c> {
    fn new(conn: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self { job: conn.prepare_cached(INSERT_JOB)?, ready: conn.prepare_cached(INSERT_READY)? })
    }
}

const INSERT_READY: &str = "INSERT INTO ready (key) VALUES (?1)";
const INSERT_JOB: &str = "INSERT INTO jobs \
     (id, queue, priority, status, run, generation, revision, run_at, stored_at, lost, body) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10) ON CONFLICT (id) DO NOTHING";

/// Stores new entries, one outcome each.
pub(super) fn enqueue(tx: &mut Tx<'_>, entries: &[Entry]) -> rusqlite::Result<Vec<Enqueued>> {
    let ids = || entries.iter().map(|entry| entry.address.id.as_str());
    let (Some(first), Some(last)) = (ids().min(), ids().max()) else { return Ok(Vec::new()) };
    // New ids are greater than those of all results, as a rule; then one look serves the whole batch.
    let results_in_range: bool = tx
        .conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM results WHERE id BETWEEN ?1 AND ?2)")?
        .query_row([first, last], |row| row.get(0))?;
    let mut inserts = Inserts::new(tx.conn)?;
    let mut outcomes = Vec::with_capacity(entries.len());
    for entry in entries {
        let ended = results_in_range && results::newer_than_generation(tx, &entry.address.id, entry.generation)?;
        let stored = !ended && insert_row(tx, &mut inserts, entry)?;
        if stored && !entry.address.id.is_generated() {
            remove_cancel_intent(tx, &entry.address.id)?;
        }
        outcomes.push(if stored { Enqueued::Stored } else { Enqueued::Duplicate });
    }
    Ok(outcomes)
}

/// Stores new entries, if every one of them can be stored. Looks at all of them first: the transaction holds other commands
/// too, so that nothing of it can be undone.
pub(super) fn enqueue_all(tx: &mut Tx<'_>, entries: &[Entry]) -> rusqlite::Result<EnqueuedAll> {
    let mut ids = HashSet::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let id = &entry.address.id;
        let lives: bool = tx
            .conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1)")?
            .query_row([id.as_str()], |row| row.get(0))?;
        if lives || !ids.insert(id) || results::newer_than_generation(tx, id, entry.generation)? {
            return Ok(EnqueuedAll::Taken(at));
        }
    }
    enqueue(tx, entries)?;
    Ok(EnqueuedAll::Stored)
}

fn insert_row(tx: &mut Tx<'_>, inserts: &mut Inserts<'_>, entry: &Entry) -> rusqlite::Result<bool> {
    let queue = tx.queue(&entry.address.queue)?;
    let revision = if entry.status == JobStatus::Pending { 0 } else { tx.next_revision() };
    let rows = inserts.job.execute(params![
        entry.address.id.as_str(),
        queue,
        entry.address.priority.get(),
        status_number(entry.status),
        entry.run,
        revision_in(entry.generation),
        revision,
        entry.run_at.map(|at| at.unix_millis()),
        entry.address.stored_at.unix_millis(),
        &*entry.body,
    ])?;
    if rows == 0 {
        return Ok(false);
    }
    if entry.status == JobStatus::Pending {
        inserts.ready.execute([ready_key(queue, entry.address.priority, tx.conn.last_insert_rowid())])?;
    }
    note_entered(tx, entry.status);
    Ok(true)
}

/// Announces where a job has gone.
pub(super) fn note_entered(tx: &mut Tx<'_>, status: JobStatus) {
    match status {
        JobStatus::Pending => tx.changes.jobs = true,
        _ => tx.changes.due = true,
    }
}

/// Starts a new life: the entry comes, the dead letter goes.
pub(super) fn requeue(tx: &mut Tx<'_>, entry: &Entry) -> rusqlite::Result<Enqueued> {
    if results::newer_than_generation(tx, &entry.address.id, entry.generation)? {
        return Ok(Enqueued::Duplicate);
    }
    if !insert_row(tx, &mut Inserts::new(tx.conn)?, entry)? {
        return Ok(Enqueued::Duplicate);
    }
    results::remove_dead_letter(tx, &entry.address.id)?;
    remove_cancel_intent(tx, &entry.address.id)?;
    Ok(Enqueued::Stored)
}

/// Gives a waiting entry another time, body and state; `false` if it is not at that revision.
pub(super) fn reschedule(tx: &mut Tx<'_>, entry: &Entry, revision: u64) -> rusqlite::Result<bool> {
    let next = tx.next_revision();
    let rows = tx
        .conn
        .prepare_cached(
            "UPDATE jobs SET status = ?3, run = ?4, run_at = ?5, revision = ?6, body = ?7 \
             WHERE id = ?1 AND revision = ?2 AND status IN (0, 1, 4)",
        )?
        .execute(params![
            entry.address.id.as_str(),
            revision_in(revision),
            status_number(entry.status),
            entry.run,
            entry.run_at.map(|at| at.unix_millis()),
            next,
            &*entry.body,
        ])?;
    if rows == 1 {
        note_entered(tx, entry.status);
    }
    Ok(rows == 1)
}

/// Moves due entries into their queues, behind what lies there.
pub(super) fn promote(tx: &mut Tx<'_>, promotions: &[Promotion]) -> rusqlite::Result<Vec<Promoted>> {
    promotions.iter().map(|promotion| promote_one(tx, promotion)).collect()
}

fn promote_one(tx: &mut Tx<'_>, Promotion { revision, entry }: &Promotion) -> rusqlite::Result<Promoted> {
    let id = entry.address.id.as_str();
    let seq: Option<i64> = tx
        .conn
        .prepare_cached("SELECT seq FROM jobs WHERE id = ?1 AND revision = ?2 AND status IN (0, 1, 4)")?
        .query_row(params![id, revision_in(*revision)], |row| row.get(0))
        .optional()?;
    let Some(seq) = seq else { return Ok(Promoted::Superseded) };
    if results::newer_than_generation(tx, &entry.address.id, entry.generation)? {
        tx.conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?.execute([seq])?;
        return Ok(Promoted::AlreadyEnded);
    }
    let queue = tx.queue(&entry.address.queue)?;
    // A new place at the end: among jobs that are ready, the order is that in which they became so.
    let place: i64 = tx.conn.prepare_cached("SELECT max(seq) + 1 FROM jobs")?.query_row([], |row| row.get(0))?;
    tx.conn
        .prepare_cached(
            "UPDATE jobs SET seq = ?8, queue = ?2, priority = ?3, status = ?4, run = ?5, \
             generation = ?6, revision = 0, run_at = NULL, lost = 0, body = ?7 WHERE seq = ?1",
        )?
        .execute(params![
            seq,
            queue,
            entry.address.priority.get(),
            QUEUED,
            entry.run,
            revision_in(entry.generation),
            &*entry.body,
            place,
        ])?;
    tx.conn.prepare_cached(INSERT_READY)?.execute([ready_key(queue, entry.address.priority, place)])?;
    tx.changes.jobs = true;
    Ok(Promoted::Done)
}

/// Ends a job whoever holds it. A job that is not there has ended before.
pub(super) fn end(tx: &mut Tx<'_>, ending: &Ending) -> rusqlite::Result<Ended> {
    let id = &ending.address.id;
    let row: Option<(i64, i64, i64, Priority)> = tx
        .conn
        .prepare_cached("SELECT seq, generation, queue, priority FROM jobs WHERE id = ?1")?
        .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, rows::priority(row, 3)?)))
        .optional()?;
    let Some((seq, generation, queue, priority)) = row else { return Ok(Ended::AlreadyEnded) };
    let place = (queue, priority, seq);
    if let Some(result) = &ending.result
        && let Won::No { revision } = ResultInsert::new(tx.conn)?.store(tx, &ending.address, result)?
    {
        // A row whose life began from that very result is a new life, and not what this call is about.
        if generation < revision {
            remove(tx, place)?;
        }
        return Ok(Ended::AlreadyEnded);
    }
    if let Some(letter) = &ending.dead_letter {
        results::store_dead_letter(tx, letter)?;
    }
    kv::release(tx, ending.unique_key.as_deref(), id)?;
    if remove(tx, place)? {
        leave_cancel_intent(tx, id)?;
        tx.changes.freed = true;
    }
    Ok(Ended::Done)
}

/// Removes a job wherever it is; `true` if a worker had it.
fn remove(tx: &Tx<'_>, (queue, priority, seq): (i64, Priority, i64)) -> rusqlite::Result<bool> {
    tx.conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?.execute([seq])?;
    tx.conn.prepare_cached("DELETE FROM ready WHERE key = ?1")?.execute([ready_key(queue, priority, seq)])?;
    Ok(tx.conn.prepare_cached("DELETE FROM leases WHERE seq = ?1")?.execute([seq])? > 0)
}

fn cancel_key(id: &JobId) -> String {
    format!("cancel.{id}")
}

/// Leaves word for the worker that runs the job: watchers only see what is there after a commit.
fn leave_cancel_intent(tx: &mut Tx<'_>, id: &JobId) -> rusqlite::Result<()> {
    kv::put(tx, Bucket::Control, &cancel_key(id), b"{}", Some(CANCEL_INTENT_TTL))
}

pub(super) fn remove_cancel_intent(tx: &mut Tx<'_>, id: &JobId) -> rusqlite::Result<()> {
    kv::delete(tx, Bucket::Control, &cancel_key(id), None).map(drop)
}
