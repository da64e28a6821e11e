//! How values of the seam stand in rows, and back.
//!
//! Invariant: the numbers of states and buckets are written here and nowhere else; a value that no naq wrote is an error,
//! not a guess. Who reads many rows passes over such a row ([`known`]), so that it stops nobody's work; the doctor counts them.

use bytes::Bytes;
use naq_models::{Address, JobId, JobStatus, Priority, QueueName, Timestamp};
use rusqlite::Row;

use super::{clock::Moment, error::foreign_value};
use crate::storage::{Bucket, RunningAt, ScheduledEntry, Sighting};

/// In a queue: ready, or claimed.
pub(super) const QUEUED: i64 = 2;

/// Bits of `seq` in `ready.key`.
pub(super) const SEQ_BITS: u32 = 44;
/// Takes `seq` out of a `ready.key`.
pub(super) const SEQ_MASK: i64 = (1 << SEQ_BITS) - 1;

/// A row that was read; `None` if it has a value that no naq wrote.
pub(super) fn known<T>(read: rusqlite::Result<T>) -> rusqlite::Result<Option<T>> {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
    match read {
        Ok(value) => Ok(Some(value)),
        Err(
            error
            @ (FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..)),
        ) => {
            tracing::debug!(%error, "a row that no naq wrote is passed over");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The keys of a lane: from the first possible to the last.
pub(super) fn lane_keys(queue: i64, priority: Priority) -> (i64, i64) {
    let first = (queue * 4 + i64::from(priority.get())) << SEQ_BITS;
    (first, first | SEQ_MASK)
}

/// The key of a place in a lane.
pub(super) fn ready_key(queue: i64, priority: Priority, seq: i64) -> i64 {
    lane_keys(queue, priority).0 | seq
}

pub(super) fn status_number(status: JobStatus) -> i64 {
    match status {
        JobStatus::Scheduled => 0,
        JobStatus::Waiting => 1,
        JobStatus::Pending => QUEUED,
        JobStatus::Running => 3,
        JobStatus::Retry => 4,
        JobStatus::Completed => 5,
        JobStatus::Failed => 6,
        JobStatus::Cancelled => 7,
    }
}

fn status_of(column: usize, number: i64) -> rusqlite::Result<JobStatus> {
    JobStatus::ALL
        .into_iter()
        .find(|status| status_number(*status) == number)
        .ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))
}

pub(super) fn bucket_number(bucket: Bucket) -> i64 {
    match bucket {
        Bucket::Schedules => 0,
        Bucket::Workers => 1,
        Bucket::Locks => 2,
        Bucket::Control => 3,
        Bucket::Unique => 4,
        Bucket::Progress => 5,
    }
}

/// A revision as callers see it. They start at 1.
pub(super) fn revision_out(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// A revision as it is stored; one that no store gives matches nothing.
pub(super) fn revision_in(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(-1)
}

pub(super) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<JobId> {
    JobId::new(row.get_ref(column)?.as_str()?).map_err(|error| foreign_value(column, error))
}

pub(super) fn queue(row: &Row<'_>, column: usize) -> rusqlite::Result<QueueName> {
    QueueName::new(row.get_ref(column)?.as_str()?).map_err(|error| foreign_value(column, error))
}

pub(super) fn priority(row: &Row<'_>, column: usize) -> rusqlite::Result<Priority> {
    Priority::new(row.get(column)?).map_err(|error| foreign_value(column, error))
}

pub(super) fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let millis = row.get(column)?;
    Timestamp::from_unix_millis(millis).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, millis))
}

fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    let Some(millis) = row.get::<_, Option<i64>>(column)? else { return Ok(None) };
    Timestamp::from_unix_millis(millis).map(Some).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, millis))
}

pub(super) fn body(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}

/// What [`job`] reads.
pub(super) const JOB_COLUMNS: &str = "j.id, q.name, j.priority, j.stored_at, j.status, j.run_at, j.run, j.revision, \
     l.worker, l.claimed_at, l.lease_until, l.boot, j.body";
/// Where [`job`] reads it from.
pub(super) const JOB_TABLES: &str = "jobs j JOIN queues q ON q.queue = j.queue LEFT JOIN leases l ON l.seq = j.seq";

/// What rows of jobs and dead letters begin with: id, name of the queue, priority, time.
pub(super) fn address(row: &Row<'_>) -> rusqlite::Result<Address> {
    Ok(Address { id: id(row, 0)?, queue: queue(row, 1)?, priority: priority(row, 2)?, stored_at: time(row, 3)? })
}

/// A row of `jobs`, as it is at `now` of this boot.
pub(super) fn job(row: &Row<'_>, now: Moment, boot: i64) -> rusqlite::Result<Sighting> {
    let address = address(row)?;
    let status = status_of(4, row.get(4)?)?;
    let body = body(row, 12)?;
    if status == JobStatus::Pending {
        let worker: Option<String> = row.get(8)?;
        let running = match worker {
            Some(worker_id) if row.get::<_, i64>(10)? > now.boot && row.get::<_, i64>(11)? == boot => {
                Some(RunningAt { worker_id, started_at: time(row, 9)? })
            }
            _ => None,
        };
        return Ok(Sighting::Queued { address, body, running });
    }
    Ok(Sighting::Scheduled(ScheduledEntry {
        address,
        status,
        run_at: optional_time(row, 5)?,
        run: row.get(6)?,
        revision: revision_out(row.get(7)?),
        body,
    }))
}
