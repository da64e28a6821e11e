//! How values of the seam stand in rows, and back.
//!
//! Invariant: the numbers of states and buckets are written here and nowhere else; a value that no naq wrote is an error,
//! not a guess.

use bytes::Bytes;
use naq_models::{Address, JobId, JobStatus, Priority, QueueName, Timestamp};
use rusqlite::Row;

use super::{clock::Moment, error::foreign_value};
use crate::storage::{Bucket, RunningAt, ScheduledEntry, Sighting};

pub(super) const PENDING: i64 = 2;
pub(super) const RUNNING: i64 = 3;

pub(super) fn status_number(status: JobStatus) -> i64 {
    match status {
        JobStatus::Scheduled => 0,
        JobStatus::Waiting => 1,
        JobStatus::Pending => PENDING,
        JobStatus::Running => RUNNING,
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

/// The columns that [`job`] reads, of `jobs j JOIN queues q`.
pub(super) const JOB_COLUMNS: &str = "j.id, q.name, j.priority, j.stored_at, j.status, j.run_at, j.run, j.revision, \
     j.worker, j.claimed_at, j.lease_until, j.boot, j.body";

/// A row of `jobs`, as it is at `now` of this boot.
pub(super) fn job(row: &Row<'_>, now: Moment, boot: i64) -> rusqlite::Result<Sighting> {
    let address =
        Address { id: id(row, 0)?, queue: queue(row, 1)?, priority: priority(row, 2)?, stored_at: time(row, 3)? };
    let status = status_of(4, row.get(4)?)?;
    let body = body(row, 12)?;
    if matches!(status, JobStatus::Pending | JobStatus::Running) {
        let held = status == JobStatus::Running && row.get::<_, i64>(10)? > now.boot && row.get::<_, i64>(11)? == boot;
        let running = if held { Some(RunningAt { worker_id: row.get(8)?, started_at: time(row, 9)? }) } else { None };
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
