//! Bare loops over rusqlite: insert; claim, store the result and delete.
//!
//! Invariant: one connection, prepared statements, write-ahead logging with `synchronous=FULL`, one transaction per batch.
//! The file and its tables are those that naq made; every column that naq writes is written.

use std::path::Path;

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, params};

use super::{Result, failed};

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
            // As naq does: less often than the default, which costs bulk work dearly.
            conn.query_row("PRAGMA wal_autocheckpoint=4000", [], |_| Ok(()))?;
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
             (id, queue, priority, status, run, generation, revision, run_at, stored_at, deliveries, body) \
             VALUES (?1, 1, 2, 2, 1, 0, 0, NULL, ?2, 0, ?3) ON CONFLICT (id) DO NOTHING",
        )?;
        for row in rows {
            insert.execute(params![row.id, row.stored_at, &*row.body])?;
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
        let mut delete = self.conn.prepare_cached("DELETE FROM jobs WHERE seq = ?1 AND token = ?2")?;
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO results (revision, id, queue, status, expires_at, body) VALUES (?1, ?2, 1, 5, ?3, ?4) \
             ON CONFLICT (id) DO NOTHING",
        )?;
        for job in done {
            delete.execute(params![job.seq, job.token])?;
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
            "SELECT seq, id, stored_at, deliveries, body FROM jobs WHERE queue = 1 AND status = 2 AND priority = 2 \
             ORDER BY seq LIMIT ?1",
        )?;
        let rows = select.query_map([i64::try_from(batch).unwrap_or(i64::MAX)], |row| {
            Ok(Claimed { seq: row.get(0)?, token, id: row.get(1)?, body: row.get(4)? })
        })?;
        let claimed = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        if let Some(last) = claimed.last() {
            self.conn
                .prepare_cached(
                    "UPDATE jobs SET status = 3, deliveries = deliveries + 1, token = ?2, lease_until = ?3, boot = 1, \
                     claimed_at = ?3, worker = 'bare' WHERE queue = 1 AND status = 2 AND priority = 2 AND seq <= ?1",
                )?
                .execute(params![last.seq, token, FAR])?;
        }
        Ok(claimed)
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
