//! The embedded store: one SQLite file, or a database in memory.
//!
//! Invariant: every move of a job is one transaction, so there is no state between two; a call returns after its commit.
//! All blocking work happens on threads of this module, never on the caller's runtime. Several processes may share a file
//! on one host; they find each other's work by looking at the file's version while somebody waits.
//!
//! Not here: what a job's next state is, and anything over a network (network file systems do not work).

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use naq_models::{JobId, QueueName, Timestamp};

use self::{
    clock::Clock,
    core::Session,
    event_log::SqliteEventFeed,
    feeds::{SqliteDueFeed, SqliteHeartbeat, SqliteKvWatch, SqliteResultFeed},
    look::Cursor,
    writer::Commit,
};
use super::{
    Action, Bucket, Claim, Consumer, ConsumerOptions, DueFeed, Ended, Ending, Enqueued, EnqueuedAll, Entry, EventBatch,
    EventBounds, EventFeed, EventPage, EventRange, EventRetention, Finding, Heartbeat, KvEntry, KvWatch, Lease,
    ListFilter, ListPage, Promoted, Promotion, QueueStats, Remains, Result, ResultFeed, ResultRecord, Review,
    ScheduledEntry, Settled, Settlement, SharedStorage, Sighting, Storage, StorageError, StorageErrorKind, StorageInfo,
    StoredResult, VirtualClock,
};

mod checkpointer;
mod claims;
mod clock;
mod consumer;
mod core;
mod diagnose;
mod doorbell;
pub(crate) mod error;
mod event_log;
mod feeds;
mod inbox;
mod jobs;
mod kv;
mod look;
pub(crate) mod open;
mod reader;
mod results;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod wake;
mod writer;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqliteLocation {
    /// A file, which is created if it does not exist.
    File(PathBuf),
    /// In memory, shared by all who open the same name in this process, until the last of them closes.
    Memory(String),
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// A power cut: every commit that carries a promise is flushed to the disk.
    #[default]
    Full,
    /// A kill of the process; a power cut may take back the last commits, never damage the file.
    Normal,
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Where.
    pub location: SqliteLocation,
    /// What a commit survives.
    pub synchronous: Synchronous,
    /// The largest body of a job or result, in bytes. 1 MiB by default.
    pub max_body: usize,
    /// How long a call waits while other processes write. 5 s by default.
    pub busy_timeout: Duration,
    /// How long events are kept. A week and 1 GB by default.
    pub events: EventRetention,
    /// Create the directories above the file; for default paths, not for those that people type.
    pub create_directories: bool,
}

impl SqliteOptions {
    /// A file with the default settings.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::at(SqliteLocation::File(path.into()))
    }

    /// A database in memory with the default settings.
    pub fn memory(name: impl Into<String>) -> Self {
        Self::at(SqliteLocation::Memory(name.into()))
    }

    fn at(location: SqliteLocation) -> Self {
        Self {
            location,
            synchronous: Synchronous::default(),
            max_body: 1 << 20,
            busy_timeout: Duration::from_secs(5),
            events: EventRetention::default(),
            create_directories: false,
        }
    }
}

/// Opens a store. Needs a tokio runtime.
///
/// # Errors
/// `Incompatible` (not a database, another program's, a newer naq's), `ReadOnly`, `Denied`, `Corrupt`, `Full`,
/// `Unreachable` (no such directory; somebody else holds the file); each names the path and what to try.
pub async fn open(options: SqliteOptions) -> Result<SharedStorage> {
    opened(move || open::open(&options)).await
}

/// Opens a new store in memory whose time stands at `start`, or at that of the host, until a test moves it. Who opens the
/// same name afterwards, in whatever way, finds this store. Needs a tokio runtime.
///
/// # Errors
/// `Refused` if the location is not in memory; `Conflict` if a store of the name is open.
#[doc(hidden)]
pub async fn open_virtual(options: SqliteOptions, start: Option<Timestamp>) -> Result<SharedStorage> {
    let clock = VirtualClock::starting_at(start.unwrap_or_else(clock::wall_now));
    opened(move || open::open_virtual(&options, clock)).await
}

async fn opened(open: impl FnOnce() -> Result<Arc<Session>> + Send + 'static) -> Result<SharedStorage> {
    let session = tokio::task::spawn_blocking(open).await.map_err(|error| {
        StorageError::new(StorageErrorKind::Refused, "open", "opening was interrupted").with_source(error)
    })??;
    Ok(Arc::new(SqliteStorage { session }))
}

/// Entries of one enqueue that go into one transaction.
const ENQUEUE_CHUNK: usize = 1000;
/// So many bytes of events weigh as much as the row of a job.
const EVENT_ROW: usize = 1024;

struct SqliteStorage {
    session: Arc<Session>,
}

impl fmt::Debug for SqliteStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteStorage").field(&self.session.core.location).finish()
    }
}

impl SqliteStorage {
    fn check_size(&self, operation: &'static str, what: &str, len: usize) -> Result<()> {
        let max = self.session.core.options.max_body;
        if len <= max {
            return Ok(());
        }
        let text = format!("{what} of {len} bytes; this store takes {max}");
        Err(self
            .session
            .error(StorageErrorKind::TooLarge, operation, text)
            .with_hint("store the data elsewhere and pass a reference"))
    }

    fn check_result(&self, operation: &'static str, result: Option<&ResultRecord>) -> Result<()> {
        result.map_or(Ok(()), |result| self.check_size(operation, "a result", result.body.len()))
    }

    fn check_settlement(&self, settlement: &Settlement) -> Result<()> {
        match &settlement.action {
            Action::End { result, .. } => self.check_result("settle", result.as_ref()),
            Action::Again(entry) => self.check_size("settle", "a job", entry.body.len()),
        }
    }

    fn conflict(&self, operation: &'static str, detail: impl fmt::Display) -> StorageError {
        self.session.error(StorageErrorKind::Conflict, operation, detail)
    }

    /// Runs the items that pass a check as one command; the others keep their errors. One outcome per item, in order.
    async fn write_checked<I, T, F>(
        &self,
        operation: &'static str,
        items: Vec<I>,
        check: impl Fn(&I) -> Result<()>,
        work: F,
    ) -> Vec<Result<T>>
    where
        I: Send + 'static,
        T: Send + 'static,
        F: Fn(&mut writer::Tx<'_>, &[I]) -> rusqlite::Result<Vec<T>> + Send + 'static,
    {
        let checks: Vec<Result<()>> = items.iter().map(check).collect();
        let good: Vec<I> = items.into_iter().zip(&checks).filter(|(_, ok)| ok.is_ok()).map(|(item, _)| item).collect();
        let weight = good.len();
        let mut outcomes = if good.is_empty() {
            Ok(Vec::new())
        } else {
            let commands = &self.session.core.commands;
            self.session.call(commands, Commit::Durable, weight, move |tx| work(tx, &good)).await
        }
        .map(Vec::into_iter);
        checks
            .into_iter()
            .map(|check| {
                check?;
                match &mut outcomes {
                    Ok(outcomes) => Ok(outcomes.next().expect("one outcome per item that passed")),
                    Err(refusal) => Err(self.session.explain(operation, refusal.clone())),
                }
            })
            .collect()
    }
}

#[async_trait]
impl Storage for SqliteStorage {
    fn info(&self) -> StorageInfo {
        let core = &self.session.core;
        StorageInfo {
            backend: if core.path.is_some() { "sqlite" } else { "memory" },
            location: core.location.clone(),
            version: format!("SQLite {}", rusqlite::version()),
            max_body: core.options.max_body,
        }
    }

    async fn now(&self) -> Result<Timestamp> {
        self.session.check_open("now")?;
        Ok(self.session.core.clock.wall())
    }

    fn virtual_clock(&self) -> Option<VirtualClock> {
        match &self.session.core.clock {
            Clock::Host => None,
            Clock::Virtual(clock) => Some(clock.clone()),
        }
    }

    async fn diagnose(&self) -> Result<Vec<Finding>> {
        let core = &self.session.core;
        let (path, synchronous) = (core.path.clone(), core.options.synchronous);
        self.session.read("diagnose", move |conn, _| diagnose::diagnose(conn, path.as_deref(), synchronous)).await
    }

    async fn close(&self) {
        self.session.close().await;
    }

    async fn enqueue(&self, entries: Vec<Entry>) -> Vec<Result<Enqueued>> {
        let mut chunks = Vec::with_capacity(entries.len().div_ceil(ENQUEUE_CHUNK));
        let mut entries = entries.into_iter();
        while entries.len() > 0 {
            let chunk: Vec<Entry> = entries.by_ref().take(ENQUEUE_CHUNK).collect();
            chunks.push(self.write_checked(
                "enqueue",
                chunk,
                |entry| self.check_size("enqueue", "a job", entry.body.len()),
                jobs::enqueue,
            ));
        }
        join_all(chunks).await.into_iter().flatten().collect()
    }

    async fn enqueue_all(&self, entries: Vec<Entry>) -> Result<EnqueuedAll> {
        for entry in &entries {
            self.check_size("enqueue all", "a job", entry.body.len())?;
        }
        let weight = entries.len();
        self.session.write("enqueue all", Commit::Durable, weight, move |tx| jobs::enqueue_all(tx, &entries)).await
    }

    async fn get_job(&self, id: &JobId) -> Result<Vec<Sighting>> {
        let wanted = id.clone();
        let found = self.session.read("get_job", move |conn, now| look::job(conn, now, &wanted)).await?;
        if found.is_empty() {
            return Err(self.session.error(StorageErrorKind::NotFound, "get_job", format!("no job {id}")));
        }
        Ok(found)
    }

    async fn list(&self, filter: &ListFilter) -> Result<ListPage> {
        let after = match &filter.cursor {
            None => None,
            Some(text) => Some(text.parse::<Cursor>().map_err(|look::CursorError| {
                self.session.error(StorageErrorKind::Refused, "list", format!("{text:?} is not a cursor of this store"))
            })?),
        };
        let filter = filter.clone();
        self.session.read("list", move |conn, now| look::list(conn, now, &filter, after)).await
    }

    async fn queue_stats(&self, queue: Option<&QueueName>) -> Result<Vec<QueueStats>> {
        let queue = queue.cloned();
        self.session.read("queue_stats", move |conn, _| look::stats(conn, queue.as_ref())).await
    }

    async fn open_consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>> {
        self.session.check_open("open_consumer")?;
        Ok(Box::new(consumer::SqliteConsumer::open(Arc::clone(&self.session), options)))
    }

    async fn open_heartbeat(&self) -> Result<Box<dyn Heartbeat>> {
        self.session.check_open("open_heartbeat")?;
        let session = Arc::clone(&self.session);
        let opened = tokio::task::spawn_blocking(move || {
            let own = session.core.path.as_ref().map(|path| open::open_own_writer(&session.core, path)).transpose()?;
            Ok(SqliteHeartbeat { session, own, refused: AtomicBool::new(false) })
        });
        let heartbeat: Result<SqliteHeartbeat> = opened.await.map_err(|error| {
            self.session
                .error(StorageErrorKind::Refused, "open_heartbeat", "opening was interrupted")
                .with_source(error)
        })?;
        Ok(Box::new(heartbeat?))
    }

    async fn review(&self, claim: &Claim) -> Result<Review> {
        let lease = claim.lease.clone();
        self.session.read("review", move |conn, now| claims::review(conn, now, &lease)).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled>> {
        self.write_checked("settle", settlements, |settlement| self.check_settlement(settlement), claims::settle).await
    }

    async fn hand_back(&self, leases: Vec<Lease>) -> Result<()> {
        let weight = leases.len();
        self.session.write("hand_back", Commit::Soft, weight, move |tx| claims::hand_back(tx, &leases)).await
    }

    async fn end(&self, ending: Ending) -> Result<Ended> {
        self.check_result("end", ending.result.as_ref())?;
        self.session.write("end", Commit::Durable, 1, move |tx| jobs::end(tx, &ending)).await
    }

    async fn requeue(&self, entry: Entry) -> Result<Enqueued> {
        self.check_size("requeue", "a job", entry.body.len())?;
        self.session.write("requeue", Commit::Durable, 1, move |tx| jobs::requeue(tx, &entry)).await
    }

    async fn reschedule(&self, entry: Entry, revision: u64) -> Result<()> {
        self.check_size("reschedule", "a job", entry.body.len())?;
        let id = entry.address.id.clone();
        let moved = self
            .session
            .write("reschedule", Commit::Durable, 1, move |tx| jobs::reschedule(tx, &entry, revision))
            .await?;
        if moved { Ok(()) } else { Err(self.conflict("reschedule", format!("job {id} does not wait, or has changed"))) }
    }

    async fn remove_dead_letter(&self, id: &JobId) -> Result<bool> {
        let id = id.clone();
        self.session
            .write("remove_dead_letter", Commit::Durable, 1, move |tx| results::remove_dead_letter(tx, &id))
            .await
    }

    async fn open_due_feed(&self) -> Result<Box<dyn DueFeed>> {
        self.session.check_open("open_due_feed")?;
        Ok(Box::new(SqliteDueFeed::open(Arc::clone(&self.session))))
    }

    async fn get_scheduled(&self, ids: &[JobId]) -> Result<Vec<Option<ScheduledEntry>>> {
        let ids = ids.to_vec();
        self.session.read("get_scheduled", move |conn, now| look::scheduled(conn, now, &ids)).await
    }

    async fn promote(&self, promotions: Vec<Promotion>) -> Vec<Result<Promoted>> {
        self.write_checked(
            "promote",
            promotions,
            |promotion| self.check_size("promote", "a job", promotion.entry.body.len()),
            jobs::promote,
        )
        .await
    }

    async fn get_result(&self, id: &JobId) -> Result<Option<StoredResult>> {
        let id = id.clone();
        self.session.read("get_result", move |conn, now| results::get(conn, now, &id)).await
    }

    async fn wait_result(&self, id: &JobId, newer_than: u64, timeout: Duration) -> Result<Option<StoredResult>> {
        let mut wait = self.session.core.wake.await_result(id);
        let _watching = self.session.watch();
        let look = async {
            loop {
                let found = self.get_result(id).await?.filter(|result| result.revision > newer_than);
                if found.is_some() {
                    return Ok(found);
                }
                wait.changed().await;
            }
        };
        tokio::time::timeout(timeout, look).await.unwrap_or(Ok(None))
    }

    async fn store_remains(&self, remains: Vec<Remains>) -> Vec<Result<Enqueued>> {
        let check = |remains: &Remains| {
            self.check_result("store remains", remains.result.as_ref())?;
            remains
                .dead_letter
                .as_ref()
                .map_or(Ok(()), |letter| self.check_size("store remains", "a dead letter", letter.body.len()))
        };
        self.write_checked("store remains", remains, check, results::store_remains).await
    }

    async fn remove_result(&self, id: &JobId, revision: u64) -> Result<bool> {
        let id = id.clone();
        self.session.write("remove_result", Commit::Durable, 1, move |tx| results::remove(tx, &id, revision)).await
    }

    async fn open_result_feed(&self) -> Result<Box<dyn ResultFeed>> {
        self.session.check_open("open_result_feed")?;
        Ok(Box::new(SqliteResultFeed::open(Arc::clone(&self.session))))
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        let events = self.session.core.options.events;
        let sweep = move |tx: &mut writer::Tx<'_>| {
            let results = results::sweep(tx, limit)?;
            let keys = kv::sweep(tx, limit.saturating_sub(results))?;
            let events = event_log::sweep(tx, tx.now, events, limit.saturating_sub(results + keys))?;
            Ok(results + keys + events)
        };
        self.session.write("sweep", Commit::Soft, limit, sweep).await
    }

    async fn finish_orphans(&self, _limit: usize) -> Result<usize> {
        Ok(0)
    }

    async fn append_events(&self, batches: Vec<EventBatch>) -> Result<()> {
        let weight = batches.iter().map(|batch| batch.body.len() / EVENT_ROW).sum();
        let append = move |tx: &mut writer::Tx<'_>| event_log::append(tx, &batches);
        self.session.write("append_events", Commit::Soft, weight, append).await
    }

    async fn read_events(&self, range: &EventRange) -> Result<EventPage> {
        let range = range.clone();
        self.session.read("read_events", move |conn, _| event_log::read(conn, &range)).await
    }

    async fn event_bounds(&self) -> Result<EventBounds> {
        self.session.read("event_bounds", |conn, _| event_log::bounds(conn)).await
    }

    async fn tail_events(&self, after: u64) -> Result<Box<dyn EventFeed>> {
        self.session.check_open("tail_events")?;
        Ok(Box::new(SqliteEventFeed::open(Arc::clone(&self.session), after)))
    }

    async fn kv_get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>> {
        let key = key.to_owned();
        self.session.read("kv_get", move |conn, now| kv::get(conn, now, bucket, &key)).await
    }

    async fn kv_create(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64> {
        self.check_size("kv_create", "a value", value.len())?;
        let owned = key.to_owned();
        self.session
            .write("kv_create", Commit::Durable, 1, move |tx| kv::create(tx, bucket, &owned, &value, ttl))
            .await?
            .ok_or_else(|| self.conflict("kv_create", format!("{key} exists")))
    }

    async fn kv_update(
        &self,
        bucket: Bucket,
        key: &str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<u64> {
        self.check_size("kv_update", "a value", value.len())?;
        let owned = key.to_owned();
        self.session
            .write("kv_update", Commit::Durable, 1, move |tx| kv::update(tx, bucket, &owned, &value, revision, ttl))
            .await?
            .ok_or_else(|| self.conflict("kv_update", format!("{key} is not at revision {revision}")))
    }

    async fn kv_delete(&self, bucket: Bucket, key: &str, revision: Option<u64>) -> Result<bool> {
        let key = key.to_owned();
        self.session.write("kv_delete", Commit::Durable, 1, move |tx| kv::delete(tx, bucket, &key, revision)).await
    }

    async fn kv_list(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>> {
        let prefix = prefix.to_owned();
        Ok(self.session.read("kv_list", move |conn, now| kv::list(conn, now, bucket, &prefix)).await?.entries)
    }

    async fn kv_watch(&self, bucket: Bucket, prefix: &str) -> Result<Box<dyn KvWatch>> {
        self.session.check_open("kv_watch")?;
        Ok(Box::new(SqliteKvWatch::open(Arc::clone(&self.session), bucket, prefix)))
    }
}
