//! Bare loops over rusqlite: insert; claim, store the result and delete; and results that are there beforehand.
//!
//! Invariant: one connection, prepared statements, write-ahead logging with `synchronous=FULL`, one transaction per batch.
//! The file and its tables are those that naq made; every column that naq writes is written.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, params};

use super::{Result, failed};
use crate::storage::sqlite::open::{CHECKPOINT_PAGES, WRITER_CACHE_KIB};

/// A connection of its own to a file that naq has made.
#[derive(Debug)]
pub struct BareSqlite {
    conn: Connection,
    revision: i64,
}

/// A row to insert.
#[derive(Debug, Clone)]
pub struct Row {
    /// The job's id.
    pub id: String,
    /// Milliseconds since 1970.
    pub stored_at: i64,
    /// The encoded job.
    pub body: Bytes,
}

impl BareSqlite {
    /// Opens a file that naq has made.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let conn = Connection::open_with_flags(path, flags)?;
            conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
            conn.pragma_update(None, "synchronous", "FULL")?;
            conn.pragma_update(None, "temp_store", "MEMORY")?;
            // As naq does: more pages kept, and moved into the file less often than by default, which costs bulk work dearly.
            conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
            conn.query_row(&format!("PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}"), [], |_| Ok(()))?;
            conn.execute("INSERT OR IGNORE INTO queues (queue, name) VALUES (1, 'default')", [])?;
            let revision = conn.query_row("SELECT revision FROM meta", [], |row| row.get(0))?;
            Ok(Self { conn, revision })
        };
        open().map_err(failed::<rusqlite::Error>("open"))
    }

    /// Inserts jobs in transactions of `batch` rows.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn enqueue(&mut self, rows: &[Row], batch: usize) -> Result<()> {
        rows.chunks(batch).try_for_each(|rows| self.insert(rows)).map_err(failed("insert"))
    }

    fn insert(&self, rows: &[Row]) -> rusqlite::Result<()> {
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO jobs \
             (id, queue, priority, status, run, generation, revision, run_at, stored_at, lost, body) \
             VALUES (?1, 1, 2, 2, 1, 0, 0, NULL, ?2, 0, ?3) ON CONFLICT (id) DO NOTHING",
        )?;
        let mut ready = self.conn.prepare_cached("INSERT INTO ready (key) VALUES (?1)")?;
        for row in rows {
            insert.execute(params![row.id, row.stored_at, &*row.body])?;
            ready.execute([LANE | self.conn.last_insert_rowid()])?;
        }
        self.conn.execute_batch("COMMIT")
    }

    /// Runs everything that waits: claims `batch` jobs, and in the transaction that claims the next ones stores `result`
    /// for each and deletes it. Returns how many ran.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn run(&mut self, result: Option<&[u8]>, batch: usize) -> Result<usize> {
        let mut ran = 0;
        let mut claimed: Vec<Claimed> = Vec::new();
        loop {
            let next = self.turn(&claimed, result, batch).map_err(failed("run"))?;
            ran += claimed.len();
            if next.is_empty() {
                return Ok(ran);
            }
            claimed = next;
        }
    }

    fn turn(&mut self, done: &[Claimed], result: Option<&[u8]>, batch: usize) -> rusqlite::Result<Vec<Claimed>> {
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        self.finish(done, result)?;
        let claimed = self.claim(batch)?;
        self.conn.prepare_cached("UPDATE meta SET revision = ?1")?.execute([self.revision])?;
        self.conn.execute_batch("COMMIT")?;
        Ok(claimed)
    }

    fn finish(&mut self, done: &[Claimed], result: Option<&[u8]>) -> rusqlite::Result<()> {
        let mut lease = self.conn.prepare_cached("DELETE FROM leases WHERE seq = ?1 AND token = ?2")?;
        let mut delete = self.conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1")?;
        let mut insert = self.conn.prepare_cached(INSERT_RESULT)?;
        for job in done {
            lease.execute(params![job.seq, job.token])?;
            delete.execute([job.seq])?;
            if let Some(result) = result {
                self.revision += 1;
                insert.execute(params![self.revision, job.id, FAR, result])?;
            }
        }
        Ok(())
    }

    fn claim(&mut self, batch: usize) -> rusqlite::Result<Vec<Claimed>> {
        self.revision += 1;
        let token = self.revision;
        let mut select = self.conn.prepare_cached(
            "SELECT r.key, j.seq, j.id, j.stored_at, j.lost, j.body FROM ready r JOIN jobs j ON j.seq = r.key & ?3 \
             WHERE r.key BETWEEN ?1 AND ?1 + ?3 ORDER BY r.key LIMIT ?2",
        )?;
        let mut last = None;
        let rows = select.query_map(params![LANE, i64::try_from(batch).unwrap_or(i64::MAX), SEQ_MASK], |row| {
            last = Some(row.get::<_, i64>(0)?);
            Ok(Claimed { seq: row.get(1)?, token, id: row.get(2)?, body: row.get(5)? })
        })?;
        let claimed = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        if let Some(last) = last {
            self.conn
                .prepare_cached(
                    "INSERT INTO leases (seq, queue, token, lease_until, boot, claimed_at, worker) \
                     SELECT key & ?3, 1, ?4, ?5, 1, ?5, 'bare' FROM ready WHERE key BETWEEN ?1 AND ?2",
                )?
                .execute(params![LANE, last, SEQ_MASK, token, FAR])?;
            self.conn.prepare_cached("DELETE FROM ready WHERE key BETWEEN ?1 AND ?2")?.execute([LANE, last])?;
        }
        Ok(claimed)
    }

    /// Stores the results of jobs that were never here, each an id and when it expires (milliseconds since 1970), all
    /// with one body.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn keep(&mut self, results: impl IntoIterator<Item = (String, i64)>, body: &[u8]) -> Result<()> {
        let mut results = results.into_iter().peekable();
        while results.peek().is_some() {
            self.keep_some(results.by_ref().take(KEPT_AT_ONCE), body).map_err(failed("keep results"))?;
        }
        Ok(())
    }

    fn keep_some(&mut self, results: impl Iterator<Item = (String, i64)>, body: &[u8]) -> rusqlite::Result<()> {
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let mut insert = self.conn.prepare_cached(INSERT_RESULT)?;
        for (id, expires_at) in results {
            self.revision += 1;
            insert.execute(params![self.revision, id, expires_at, body])?;
        }
        self.conn.prepare_cached("UPDATE meta SET revision = ?1")?.execute([self.revision])?;
        self.conn.execute_batch("COMMIT")
    }

    /// Whether any result is kept, expired or not.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn keeps_results(&self) -> Result<bool> {
        self.conn
            .query_row("SELECT EXISTS (SELECT 1 FROM results)", [], |row| row.get(0))
            .map_err(failed("look for results"))
    }

    /// How many jobs there are.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn held(&self) -> Result<u64> {
        let held: i64 =
            self.conn.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0)).map_err(failed("count"))?;
        Ok(held.unsigned_abs())
    }
}

/// Results in one transaction, where only many matter.
const KEPT_AT_ONCE: usize = 10_000;
const INSERT_RESULT: &str = "INSERT INTO results (revision, id, queue, status, expires_at, body) \
                             VALUES (?1, ?2, 1, 5, ?3, ?4) ON CONFLICT (id) DO NOTHING";
/// The keys of queue 1, priority 2 in `ready`, less the place in the lane.
const LANE: i64 = (4 + 2) << 44;
const SEQ_MASK: i64 = (1 << 44) - 1;
/// A time that does not come while this runs, in milliseconds since 1970.
const FAR: i64 = 4_000_000_000_000;

#[derive(Debug)]
struct Claimed {
    seq: i64,
    token: i64,
    id: String,
    /// Read, as a queue has to, and not looked at.
    #[expect(dead_code, reason = "reading it is part of the work")]
    body: Vec<u8>,
}
