//! What others wait on: the due feed, watches of keys, the heartbeat.
//!
//! Invariant: each subscribes before it looks, so a change between its look and its wait is seen; a watch compares what
//! it reported with what is there, so it misses no last value however many changes it slept through.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::{JobId, Timestamp};
use rusqlite::{Connection, Row, Rows};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    claims,
    core::Session,
    kv::{self, Snapshot},
    rows::{self, revision_in, revision_out},
    wake::Following,
    writer::{Commands, Commit, Tx},
};
use crate::storage::{
    Bucket, DueEntry, DueFeed, Heartbeat, KvChange, KvWatch, Lease, LeaseState, Result, ResultFeed, ResultNews,
    WaitingEntry,
};

/// See [`DueFeed`].
pub(super) struct SqliteDueFeed {
    session: Arc<Session>,
    changes: watch::Receiver<u64>,
    /// Up to which revision the entries that wait for other jobs were reported. Commits come in the order of revisions.
    reported: u64,
    /// The time that was last acted on.
    looked_at: Timestamp,
}

impl SqliteDueFeed {
    pub(super) fn open(session: Arc<Session>) -> Self {
        let (changes, looked_at) = (session.core.wake.due.subscribe(), session.core.clock.wall());
        Self { session, changes, reported: 0, looked_at }
    }
}

fn due(conn: &Connection, now: Timestamp, max: usize) -> rusqlite::Result<Vec<DueEntry>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {ENTRY_COLUMNS}, j.run_at FROM {ENTRY_TABLES} WHERE j.status IN (0, 4) AND j.run_at <= ?1 ORDER BY j.run_at"
    ))?;
    let found = statement.query([now.unix_millis()])?;
    first(found, max, |row| {
        let (id, revision) = entry(row)?;
        Ok(DueEntry { id, run_at: rows::time(row, 6)?, revision })
    })
}

fn waiting(conn: &Connection, after: u64, max: usize) -> rusqlite::Result<Vec<WaitingEntry>> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {ENTRY_COLUMNS} FROM {ENTRY_TABLES} WHERE j.status = 1 AND j.revision > ?1 ORDER BY j.revision"
    ))?;
    let found = statement.query([revision_in(after)])?;
    first(found, max, |row| {
        let (id, revision) = entry(row)?;
        Ok(WaitingEntry { id, revision })
    })
}

/// Of an entry, all that decides whether it can be read: whoever is told of it reads it next.
const ENTRY_COLUMNS: &str = "j.id, q.name, j.priority, j.stored_at, j.run, j.revision";
/// Always in this order, because the index of `jobs` has the order that is asked for.
const ENTRY_TABLES: &str = "jobs j CROSS JOIN queues q ON q.queue = j.queue";

fn entry(row: &Row<'_>) -> rusqlite::Result<(JobId, u64)> {
    let _: u32 = row.get(4)?;
    Ok((rows::address(row)?.id, revision_out(row.get(5)?)))
}

/// The first rows that can be read.
fn first<T>(
    mut found: Rows<'_>,
    max: usize,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    let mut entries = Vec::new();
    while entries.len() < max
        && let Some(row) = found.next()?
    {
        entries.extend(rows::known(read(row))?);
    }
    Ok(entries)
}

#[async_trait]
impl DueFeed for SqliteDueFeed {
    async fn due(&mut self, now: Timestamp, max: usize) -> Result<Vec<DueEntry>> {
        self.looked_at = now;
        self.session.read("due", move |conn, _| due(conn, now, max)).await
    }

    async fn next_due(&mut self) -> Result<Option<Timestamp>> {
        // `due` orders by the same index; the end of time includes everything.
        let end = Timestamp::EPOCH.saturating_add(Duration::MAX);
        let first = self.session.read("next_due", move |conn, _| due(conn, end, 1)).await?;
        Ok(first.first().map(|entry| entry.run_at))
    }

    async fn waiting(&mut self, max: usize) -> Result<Vec<WaitingEntry>> {
        let after = self.reported;
        let found = self.session.read("waiting", move |conn, _| waiting(conn, after, max)).await?;
        self.reported = found.last().map_or(after, |entry| entry.revision);
        Ok(found)
    }

    async fn changed(&mut self) {
        let _watching = self.session.watch();
        // The sender lives in the session that this feed holds.
        tokio::select! {
            _ = self.changes.changed() => {}
            () = self.session.core.clock.moved_from(self.looked_at) => {}
        }
        self.looked_at = self.session.core.clock.wall();
    }
}

/// See [`ResultFeed`].
pub(super) struct SqliteResultFeed {
    session: Arc<Session>,
    following: Following,
}

impl SqliteResultFeed {
    pub(super) fn open(session: Arc<Session>) -> Self {
        Self { following: session.core.wake.follow_results(), session }
    }
}

#[async_trait]
impl ResultFeed for SqliteResultFeed {
    async fn follow(&mut self, ids: &[JobId]) -> Result<()> {
        self.session.check_open("follow")?;
        self.following.add(ids);
        Ok(())
    }

    fn forget(&mut self, id: &JobId) {
        self.following.remove(id);
    }

    async fn next(&mut self) -> ResultNews {
        // Nobody's results are no reason to look into the file again and again.
        let _watching = (!self.following.is_empty()).then(|| self.session.watch());
        self.following.next().await
    }
}

/// The longest sleep of a watch, in case that a clock of the host is stepped.
const WATCH_LOOKS_EVERY: Duration = Duration::from_secs(30);
/// The pause of a watch after the store has failed.
pub(super) const WATCH_RETRIES_EVERY: Duration = Duration::from_secs(1);

/// See [`KvWatch`].
pub(super) struct SqliteKvWatch {
    session: Arc<Session>,
    bucket: Bucket,
    prefix: Arc<str>,
    changes: watch::Receiver<u64>,
    reported: BTreeMap<String, u64>,
    ready: VecDeque<KvChange>,
    /// A look is due without waiting.
    look: bool,
    /// The first look ends with [`KvChange::Current`].
    first: bool,
    expires_in: Option<Duration>,
    /// When it last looked.
    looked_at: Timestamp,
}

impl SqliteKvWatch {
    pub(super) fn open(session: Arc<Session>, bucket: Bucket, prefix: &str) -> Self {
        Self {
            changes: session.core.wake.keys.subscribe(),
            looked_at: session.core.clock.wall(),
            session,
            bucket,
            prefix: prefix.into(),
            reported: BTreeMap::new(),
            ready: VecDeque::from([KvChange::Restart]),
            look: true,
            first: true,
            expires_in: None,
        }
    }

    fn compare(&mut self, snapshot: Snapshot) {
        // A millisecond more, because a key lives through the whole of its last one.
        self.expires_in =
            snapshot.expires_in.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0) + 1));
        let mut gone = std::mem::take(&mut self.reported);
        for entry in snapshot.entries {
            let known = gone.remove(&entry.key);
            self.reported.insert(entry.key.clone(), entry.revision);
            if known != Some(entry.revision) {
                self.ready.push_back(KvChange::Put(entry));
            }
        }
        self.ready.extend(gone.into_keys().map(KvChange::Gone));
        if std::mem::take(&mut self.first) {
            self.ready.push_back(KvChange::Current);
        }
    }
}

#[async_trait]
impl KvWatch for SqliteKvWatch {
    async fn next(&mut self) -> KvChange {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            if self.look {
                self.changes.mark_unchanged();
                self.looked_at = self.session.core.clock.wall();
                let (bucket, prefix) = (self.bucket, Arc::clone(&self.prefix));
                match self.session.read("watch", move |conn, now| kv::list(conn, now, bucket, &prefix)).await {
                    Ok(snapshot) => {
                        self.look = false;
                        self.compare(snapshot);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a watch could not read the store and tries again");
                        sleep(WATCH_RETRIES_EVERY).await;
                    }
                }
                continue;
            }
            let limit = self.expires_in.map_or(WATCH_LOOKS_EVERY, |left| left.min(WATCH_LOOKS_EVERY));
            let _watching = self.session.watch();
            // Either way it is time to look; the sender lives in the session that this watch holds.
            tokio::select! {
                _ = self.changes.changed() => {}
                () = self.session.core.clock.moved_from(self.looked_at) => {}
                () = sleep(limit) => {}
            }
            self.look = true;
        }
    }
}

/// See [`Heartbeat`]: a writer of its own, so that extensions never stand behind the work of the store.
pub(super) struct SqliteHeartbeat {
    pub(super) session: Arc<Session>,
    /// The heartbeat's own writer; `None` in memory, where there is one connection only.
    pub(super) own: Option<OwnWriter>,
    /// Whether the last extension was refused. The reason is told once, and not with each try.
    pub(super) refused: AtomicBool,
}

/// A writer thread that ends with its owner.
pub(super) struct OwnWriter {
    pub(super) commands: Arc<Commands>,
    pub(super) thread: Option<JoinHandle<()>>,
}

impl Drop for OwnWriter {
    fn drop(&mut self) {
        self.commands.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the heartbeat's writer panicked");
        }
    }
}

impl SqliteHeartbeat {
    fn commands(&self) -> &Arc<Commands> {
        self.own.as_ref().map_or(&self.session.core.commands, |own| &own.commands)
    }
}

#[async_trait]
impl Heartbeat for SqliteHeartbeat {
    async fn extend(&self, leases: &[Lease]) -> Vec<LeaseState> {
        if leases.is_empty() {
            return Vec::new();
        }
        let patience = claims::patience(leases);
        let deadline = std::time::Instant::now() + patience;
        let unknown = vec![LeaseState::Unknown; leases.len()];
        let owned = leases.to_vec();
        let extension = self.session.call(self.commands(), Commit::Soft, leases.len(), move |tx| {
            // Too late is not at all: the caller has gone by what it was told.
            if std::time::Instant::now() >= deadline {
                return Ok(vec![LeaseState::Unknown; owned.len()]);
            }
            claims::extend(tx, &owned)
        });
        match timeout(patience, extension).await {
            Ok(Ok(states)) => {
                self.refused.store(false, Ordering::Relaxed);
                states
            }
            Ok(Err(refusal)) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    let error = self.session.explain("extend", refusal);
                    tracing::warn!(%error, "leases could not be extended");
                }
                unknown
            }
            Err(_) => unknown,
        }
    }
    async fn put(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        let key = key.to_owned();
        let write = move |tx: &mut Tx<'_>| kv::put(tx, bucket, &key, &value, Some(ttl));
        let put = self.session.call(self.commands(), Commit::Soft, 1, write);
        put.await.map_err(|refusal| self.session.explain("put key", refusal))
    }
}
