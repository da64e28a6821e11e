//! The log of events: one row for each batch.
//!
//! Invariant: the order of `seq` is that of the commits, because one transaction writes at a time; so who has read up to a
//! position misses nothing after it. Events cost jobs little: their commits are not flushed by themselves and join those of
//! jobs.

use std::sync::Arc;

use async_trait::async_trait;
use naq_models::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::{sync::watch, time::sleep};

use super::{
    clock::Moment,
    core::Session,
    feeds::WATCH_RETRIES_EVERY,
    rows::{self, revision_in, revision_out},
    writer::Tx,
};
use crate::storage::{EventBatch, EventBounds, EventFeed, EventPage, EventRange, EventRetention, StoredEvents};

/// Batches that a feed reads at once.
const FEED_PAGE: usize = 64;
/// Rows looked at by one sweep, at most.
const SWEEP_ROWS: usize = 1000;

pub(super) fn append(tx: &mut Tx<'_>, batches: &[EventBatch]) -> rusqlite::Result<()> {
    let mut upto: i64 = tx
        .conn
        .prepare_cached("SELECT upto FROM events ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?
        .unwrap_or(0);
    for batch in batches {
        upto += i64::try_from(batch.body.len()).unwrap_or(i64::MAX);
        let jobs: Vec<u8> = batch.jobs.iter().flat_map(|job| job.to_le_bytes()).collect();
        tx.conn
            .prepare_cached("INSERT INTO events (first_at, last_at, upto, jobs, body) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![batch.first.unix_millis(), batch.last.unix_millis(), upto, jobs, &*batch.body])?;
    }
    tx.changes.events = true;
    Ok(())
}

pub(super) fn bounds(conn: &Connection) -> rusqlite::Result<EventBounds> {
    // Two looks at one end each: together they would be a scan.
    let (first, last): (Option<i64>, Option<i64>) = conn
        .prepare_cached("SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events)")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    match (first, last) {
        (Some(first), Some(last)) => Ok(EventBounds { first: revision_out(first), last: revision_out(last) }),
        _ => {
            let given: Option<i64> = conn
                .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'events'")?
                .query_row([], |row| row.get(0))
                .optional()?;
            let last = given.map_or(0, revision_out);
            Ok(EventBounds { first: last + 1, last })
        }
    }
}

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredEvents> {
    Ok(StoredEvents { position: revision_out(row.get(0)?), body: rows::body(row, 1)? })
}

fn position(position: u64) -> i64 {
    revision_in(position.min(i64::MAX.unsigned_abs()))
}

pub(super) fn read(conn: &Connection, range: &EventRange) -> rusqlite::Result<EventPage> {
    let limit = range.limit.max(1);
    let scan = Scan::of(conn, range)?;
    let mut found = match range.job {
        Some(job) => scan.of_job(conn, job, limit + 1)?,
        None => scan.any(conn, limit + 1)?,
    };
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.position);
    Ok(EventPage { batches: found, next })
}

/// A range as the tables have it.
struct Scan {
    after: i64,
    upto: i64,
    until: i64,
}

impl Scan {
    fn of(conn: &Connection, range: &EventRange) -> rusqlite::Result<Self> {
        let mut after = position(range.after);
        if let Some(since) = range.since {
            // Named, because to walk the rows would look attractive and touch every body that is older.
            let first: Option<i64> = conn
                .prepare_cached("SELECT min(seq) FROM events INDEXED BY events_time WHERE last_at >= ?1")?
                .query_row([since.unix_millis()], |row| row.get(0))?;
            after = after.max(first.map_or(i64::MAX, |first| first - 1));
        }
        let until = range.until.map_or(i64::MAX, Timestamp::unix_millis);
        Ok(Self { after, upto: position(range.upto), until })
    }

    fn any(&self, conn: &Connection, limit: usize) -> rusqlite::Result<Vec<StoredEvents>> {
        let mut statement = conn.prepare_cached(
            "SELECT seq, body FROM events WHERE seq > ?1 AND seq <= ?2 AND first_at <= ?3 ORDER BY seq LIMIT ?4",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        statement.query_map(params![self.after, self.upto, self.until, limit], stored)?.collect()
    }

    /// Looks at the fingerprints of every batch in range, and reads only the bodies of those that match.
    fn of_job(&self, conn: &Connection, job: u32, limit: usize) -> rusqlite::Result<Vec<StoredEvents>> {
        let job = job.to_le_bytes();
        let mut statement = conn.prepare_cached(
            "SELECT seq, jobs FROM events WHERE seq > ?1 AND seq <= ?2 AND first_at <= ?3 ORDER BY seq",
        )?;
        let mut body = conn.prepare_cached("SELECT seq, body FROM events WHERE seq = ?1")?;
        let mut rows = statement.query(params![self.after, self.upto, self.until])?;
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(row) = rows.next()?
        {
            if row.get_ref(1)?.as_blob()?.chunks_exact(4).any(|other| other == job) {
                found.push(body.query_row([row.get::<_, i64>(0)?], stored)?);
            }
        }
        Ok(found)
    }
}

/// Drops the oldest batches that are too old, or over the size of all; returns how many.
pub(super) fn sweep(tx: &Tx<'_>, now: Moment, retention: EventRetention, limit: usize) -> rusqlite::Result<usize> {
    let newest: Option<i64> = tx
        .conn
        .prepare_cached("SELECT upto FROM events ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(newest) = newest else { return Ok(0) };
    let keep_from = newest.saturating_sub(i64::try_from(retention.max_bytes).unwrap_or(i64::MAX));
    let max_age = i64::try_from(retention.max_age.as_millis()).unwrap_or(i64::MAX);
    let oldest = now.wall.saturating_sub(max_age);
    let mut statement = tx.conn.prepare_cached("SELECT seq, last_at, upto FROM events ORDER BY seq LIMIT ?1")?;
    let look = i64::try_from(limit.min(SWEEP_ROWS)).unwrap_or(i64::MAX);
    let mut rows = statement.query([look])?;
    let mut last = None;
    while let Some(row) = rows.next()? {
        let (last_at, upto): (i64, i64) = (row.get(1)?, row.get(2)?);
        if last_at >= oldest && upto > keep_from {
            break;
        }
        last = Some(row.get::<_, i64>(0)?);
    }
    match last {
        Some(last) => tx.conn.prepare_cached("DELETE FROM events WHERE seq <= ?1")?.execute([last]),
        None => Ok(0),
    }
}

/// See [`EventFeed`].
pub(super) struct SqliteEventFeed {
    session: Arc<Session>,
    changes: watch::Receiver<u64>,
    after: u64,
    /// A look is due without waiting.
    look: bool,
}

impl SqliteEventFeed {
    pub(super) fn open(session: Arc<Session>, after: u64) -> Self {
        Self { changes: session.core.wake.events.subscribe(), session, after, look: true }
    }
}

#[async_trait]
impl EventFeed for SqliteEventFeed {
    async fn next(&mut self) -> Vec<StoredEvents> {
        loop {
            if !self.look {
                let _watching = self.session.watch();
                // The sender lives in the session that this feed holds.
                self.changes.changed().await.ok();
                self.look = true;
            }
            self.changes.mark_unchanged();
            let range = EventRange { after: self.after, ..EventRange::first(FEED_PAGE) };
            match self.session.read("tail_events", move |conn, _| read(conn, &range)).await {
                Ok(page) => {
                    self.look = page.next.is_some();
                    if let Some(last) = page.batches.last() {
                        self.after = last.position;
                        return page.batches;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "events could not be followed; tries again");
                    sleep(WATCH_RETRIES_EVERY).await;
                }
            }
        }
    }
}
