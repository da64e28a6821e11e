//! Keys: locks, workers, schedules, control flags, unique keys.
//!
//! Invariant: a key that has expired does not exist for any statement here, swept or not. Locks and workers expire by
//! time since boot and with the boot, the rest by wall time.

use std::time::Duration;

use bytes::Bytes;
use naq_models::{JobId, UniqueHolder};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    clock::{Moment, after, boot_id},
    rows::{self, bucket_number, revision_in, revision_out},
    writer::Tx,
};
use crate::storage::{Bucket, KvEntry};

/// Whether a key lives; parameters are 1: wall now, 2: boot now, 3: boot id.
macro_rules! live {
    () => {
        "(expires_at IS NULL OR CASE WHEN boot IS NULL THEN expires_at > ?1 ELSE boot = ?3 AND expires_at > ?2 END)"
    };
}

/// What a new value expires by: (`expires_at`, `boot`).
fn expiry(bucket: Bucket, now: Moment, ttl: Option<Duration>) -> (Option<i64>, Option<i64>) {
    match (bucket, ttl) {
        (_, None) => (None, None),
        (Bucket::Locks | Bucket::Workers, Some(ttl)) => (Some(after(now.boot, ttl)), Some(boot_id())),
        (_, Some(ttl)) => (Some(after(now.wall, ttl)), None),
    }
}

pub(super) fn get(conn: &Connection, now: Moment, bucket: Bucket, key: &str) -> rusqlite::Result<Option<KvEntry>> {
    conn.prepare_cached(concat!("SELECT revision, value FROM kv WHERE bucket = ?4 AND key = ?5 AND ", live!()))?
        .query_row(params![now.wall, now.boot, boot_id(), bucket_number(bucket), key], |row| {
            Ok(KvEntry { key: key.to_owned(), value: rows::body(row, 1)?, revision: revision_out(row.get(0)?) })
        })
        .optional()
}

/// Creates a key; `None` if it exists.
pub(super) fn create(
    tx: &mut Tx<'_>,
    bucket: Bucket,
    key: &str,
    value: &[u8],
    ttl: Option<Duration>,
) -> rusqlite::Result<Option<u64>> {
    let (expires_at, boot) = expiry(bucket, tx.now, ttl);
    let revision = tx.next_kv_revision();
    let rows = tx
        .conn
        .prepare_cached(concat!(
            "INSERT INTO kv (bucket, key, revision, expires_at, boot, value) VALUES (?4, ?5, ?6, ?7, ?8, ?9) ",
            "ON CONFLICT (bucket, key) DO UPDATE SET revision = excluded.revision, expires_at = excluded.expires_at, ",
            "boot = excluded.boot, value = excluded.value WHERE NOT ",
            "(kv.expires_at IS NULL OR CASE WHEN kv.boot IS NULL THEN kv.expires_at > ?1 ",
            "ELSE kv.boot = ?3 AND kv.expires_at > ?2 END)"
        ))?
        .execute(params![
            tx.now.wall,
            tx.now.boot,
            boot_id(),
            bucket_number(bucket),
            key,
            revision,
            expires_at,
            boot,
            value
        ])?;
    Ok((rows == 1).then(|| revision_out(revision)))
}

/// Replaces a key at a revision; `None` if it is not there.
pub(super) fn update(
    tx: &mut Tx<'_>,
    bucket: Bucket,
    key: &str,
    value: &[u8],
    revision: u64,
    ttl: Option<Duration>,
) -> rusqlite::Result<Option<u64>> {
    let (expires_at, boot) = expiry(bucket, tx.now, ttl);
    let next = tx.next_kv_revision();
    let rows = tx
        .conn
        .prepare_cached(concat!(
            "UPDATE kv SET revision = ?6, expires_at = ?7, boot = ?8, value = ?9 ",
            "WHERE bucket = ?4 AND key = ?5 AND revision = ?10 AND ",
            live!()
        ))?
        .execute(params![
            tx.now.wall,
            tx.now.boot,
            boot_id(),
            bucket_number(bucket),
            key,
            next,
            expires_at,
            boot,
            value,
            revision_in(revision)
        ])?;
    Ok((rows == 1).then(|| revision_out(next)))
}

/// Sets a key whatever it is.
pub(super) fn put(
    tx: &mut Tx<'_>,
    bucket: Bucket,
    key: &str,
    value: &[u8],
    ttl: Option<Duration>,
) -> rusqlite::Result<()> {
    let (expires_at, boot) = expiry(bucket, tx.now, ttl);
    let revision = tx.next_kv_revision();
    tx.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO kv (bucket, key, revision, expires_at, boot, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![bucket_number(bucket), key, revision, expires_at, boot, value])?;
    Ok(())
}

/// Removes a key, if it is at `revision` where one is given; `false` if there was nothing to remove.
pub(super) fn delete(tx: &mut Tx<'_>, bucket: Bucket, key: &str, revision: Option<u64>) -> rusqlite::Result<bool> {
    let rows = tx
        .conn
        .prepare_cached(concat!(
            "DELETE FROM kv WHERE bucket = ?4 AND key = ?5 AND (?6 IS NULL OR revision = ?6) AND ",
            live!()
        ))?
        .execute(params![tx.now.wall, tx.now.boot, boot_id(), bucket_number(bucket), key, revision.map(revision_in)])?;
    if rows > 0 {
        tx.next_kv_revision();
    }
    Ok(rows > 0)
}

/// Frees a unique key that names this job.
pub(super) fn release(tx: &mut Tx<'_>, key: Option<&str>, id: &JobId) -> rusqlite::Result<()> {
    if let Some(key) = key
        && let Some(held) = get(tx.conn, tx.now, Bucket::Unique, key)?
        && UniqueHolder::names(&held.value, id)
    {
        delete(tx, Bucket::Unique, key, Some(held.revision))?;
    }
    Ok(())
}

/// The live keys of a prefix, and in how many milliseconds the next of them expires.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) entries: Vec<KvEntry>,
    pub(super) expires_in: Option<i64>,
}

pub(super) fn list(conn: &Connection, now: Moment, bucket: Bucket, prefix: &str) -> rusqlite::Result<Snapshot> {
    let mut statement = conn.prepare_cached(concat!(
        "SELECT key, revision, value, expires_at, boot FROM kv WHERE bucket = ?4 AND key >= ?5 AND key < ?6 AND ",
        live!()
    ))?;
    // Keys are ASCII, so nothing with the prefix is greater than this.
    let end = format!("{prefix}\u{7f}");
    let mut rows = statement.query(params![now.wall, now.boot, boot_id(), bucket_number(bucket), prefix, end])?;
    let mut snapshot = Snapshot::default();
    while let Some(row) = rows.next()? {
        let value: Bytes = rows::body(row, 2)?;
        snapshot.entries.push(KvEntry { key: row.get(0)?, value, revision: revision_out(row.get(1)?) });
        if let Some(expires_at) = row.get::<_, Option<i64>>(3)? {
            let now = if row.get::<_, Option<i64>>(4)?.is_some() { now.boot } else { now.wall };
            let left = expires_at - now;
            snapshot.expires_in = Some(snapshot.expires_in.map_or(left, |least| least.min(left)));
        }
    }
    Ok(snapshot)
}

/// Removes expired keys, at most `limit`; returns how many. Their watchers have noticed the expiry by themselves.
pub(super) fn sweep(tx: &Tx<'_>, limit: usize) -> rusqlite::Result<usize> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Two looks, so that the first can use the index on `expires_at`; the second is over few keys.
    tx.conn
        .prepare_cached(
            "DELETE FROM kv WHERE (bucket, key) IN (SELECT bucket, key FROM \
             (SELECT bucket, key FROM kv WHERE expires_at <= ?1 AND boot IS NULL LIMIT ?4) UNION ALL \
             SELECT bucket, key FROM (SELECT bucket, key FROM kv WHERE bucket IN (?5, ?6) AND boot IS NOT NULL \
             AND (boot <> ?3 OR expires_at <= ?2) LIMIT ?4) LIMIT ?4)",
        )?
        .execute(params![
            tx.now.wall,
            tx.now.boot,
            boot_id(),
            limit,
            bucket_number(Bucket::Workers),
            bucket_number(Bucket::Locks),
        ])
}
