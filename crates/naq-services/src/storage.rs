//! The storage seam: what naq asks of a place where jobs live.
//!
//! Invariant: each transition of a job is *one* call that carries all its effects, so that a backend can make it atomic
//! (SQLite: one transaction) or order its writes so that a crash between any two is harmless (NATS: the order in
//! `docs/architecture.md`). A backend decides nothing: policy, backoff, next run and dependencies are computed above and
//! arrive here as finished bytes. Calls move batches.
//!
//! Every async method is cancel safe in this sense: a dropped future leaves the store in one of the states before or
//! after the call (for a batch: for each item), never between. The caller does not learn which.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::{JobId, QueueName, Timestamp};

#[cfg(feature = "testing")]
pub mod conformance;
mod consumer;
pub mod crash;
mod entry;
mod error;
mod event_log;
mod kv;
#[cfg(feature = "nats")]
pub mod nats;
mod result_feed;
mod settlement;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod virtual_clock;

pub use consumer::{
    Claim, Consumer, ConsumerEvent, ConsumerOptions, Demand, Heartbeat, Lane, Lease, LeaseState, QueueOptions, Review,
    RunningAt, RunningJobs,
};
pub use entry::{
    DueEntry, DueFeed, Enqueued, EnqueuedAll, Entry, ListFilter, ListPage, QueueStats, ScheduledEntry, Sighting,
    WaitingEntry,
};
pub use error::{StorageError, StorageErrorKind};
pub use event_log::{EventBatch, EventBounds, EventFeed, EventPage, EventRange, EventRetention, StoredEvents};
pub use kv::{Bucket, KvChange, KvEntry, KvWatch};
pub use result_feed::{ResultFeed, ResultNews};
pub use settlement::{
    Action, DeadLetter, Ended, Ending, Promoted, Promotion, Remains, ResultRecord, Settled, Settlement, StoredResult,
};
pub use virtual_clock::VirtualClock;

pub use crate::host_clock::uptime;

/// The result of a seam call.
pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// What a backend says of itself, for people and for limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageInfo {
    /// `sqlite`, `memory`, `nats`, or a custom backend's own name.
    pub backend: &'static str,
    /// Where the store is; never a password or token.
    pub location: String,
    /// Version of the server or library, as it names itself.
    pub version: String,
    /// The largest job body or result that this store takes, in bytes.
    pub max_body: usize,
}

/// One finding of [`Storage::diagnose`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at, in a few words: `durability`, `stream naq_queue_mail`.
    pub subject: String,
    /// What was found.
    pub message: String,
    /// What to do about it; empty if nothing.
    pub advice: String,
}

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, but a promise is weaker than it could be.
    Warning,
    /// Does not work.
    Error,
}

/// A place where jobs live. Object safe; shared as `Arc<dyn Storage>`.
///
/// Custom implementations prove themselves with [`crate::storage`]'s conformance suite (feature `testing`).
#[async_trait]
pub trait Storage: Send + Sync + fmt::Debug + 'static {
    /// Who and where this store is. Does not ask the store.
    fn info(&self) -> StorageInfo;

    /// The store's clock: due times are compared with this, never with the clock of a host.
    async fn now(&self) -> Result<Timestamp>;

    /// The clock of a store in memory that a test kit has opened with one: its time stands still between two moves. `None`
    /// for every other store, whose time passes.
    fn virtual_clock(&self) -> Option<VirtualClock> {
        None
    }

    /// Looks at everything that could weaken a promise: versions, durability, drift of settings, orphaned state.
    async fn diagnose(&self) -> Result<Vec<Finding>>;

    /// Stops background work and closes connections. Calls after it fail with [`StorageErrorKind::Closed`]. Idempotent.
    async fn close(&self);

    // ---- Jobs enter and are looked at -------------------------------------------------------------------------

    /// Stores new jobs durably: `Pending` ones in their queue, the others in the scheduled store. One outcome per
    /// entry, in order. An id that is queued, scheduled, running, or whose result is kept is [`Enqueued::Duplicate`],
    /// and nothing is stored. An ambiguous answer of the store is resolved by reading back before this returns.
    async fn enqueue(&self, entries: Vec<Entry>) -> Vec<Result<Enqueued>>;

    /// Stores new jobs durably, all of them or none; an id that [`enqueue`](Self::enqueue) would call a duplicate, or that
    /// is there twice, refuses them all. A store may limit what it takes in this way, and refuses the rest before it stores
    /// anything. An ambiguous answer of the store is resolved by reading back before this returns.
    ///
    /// # Errors
    /// [`StorageErrorKind::Unsupported`] for what this store cannot do all or none; [`StorageErrorKind::TooLarge`]: in both
    /// cases nothing is stored. After [`StorageErrorKind::Timeout`] or [`StorageErrorKind::Unreachable`] it is not known
    /// whether all are stored or none.
    async fn enqueue_all(&self, entries: Vec<Entry>) -> Result<EnqueuedAll>;

    /// Everything the store knows of an id: its entry, dead letter and result, as far as they exist.
    ///
    /// # Errors
    /// [`StorageErrorKind::NotFound`] only after two rounds of looking, because a job may move between two looks.
    async fn get_job(&self, id: &JobId) -> Result<Vec<Sighting>>;

    /// One page of what the filter matches, in a stable order of the backend's choice.
    async fn list(&self, filter: &ListFilter) -> Result<ListPage>;

    /// Numbers of all queues that ever held a job (or of the one named, zeros if it is unknown).
    async fn queue_stats(&self, queue: Option<&QueueName>) -> Result<Vec<QueueStats>>;

    // ---- Jobs run --------------------------------------------------------------------------------------------

    /// Opens a consumer over queues. Nothing is claimed before [`Consumer::demand`].
    async fn open_consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>>;

    /// Opens a heartbeat with its own connection. Called on the heartbeat's own thread and runtime.
    async fn open_heartbeat(&self) -> Result<Box<dyn Heartbeat>>;

    /// For a claim whose [`Claim::doubtful`] is set: what earlier deliveries left behind.
    async fn review(&self, claim: &Claim) -> Result<Review>;

    /// Ends or moves leased jobs. One outcome per settlement, in order.
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled>>;

    /// Gives leased jobs back to their queue at once, as if they had not been delivered: the next delivery of such a
    /// job is not doubtful on account of this one. Leases that are already lost are passed over.
    async fn hand_back(&self, leases: Vec<Lease>) -> Result<()>;

    // ---- Jobs change without running -------------------------------------------------------------------------

    /// Ends a job that this caller holds no lease of (cancel, purge, an undecodable scheduled entry): result first, so
    /// that a running worker's own result loses; then the rest.
    ///
    /// Workers are told through the cancel intent (`cancel.<id>` in [`Bucket::Control`]), which this call writes first
    /// and removes last.
    async fn end(&self, ending: Ending) -> Result<Ended>;

    /// Starts a new life of an ended job: stores the entry (`Pending` or `Waiting`), then removes the dead letter. `entry.generation` is the
    /// revision of the result to be replaced. Idempotent: a second call with the same `run` reports `Duplicate`.
    async fn requeue(&self, entry: Entry) -> Result<Enqueued>;

    /// Moves a scheduled, retry or waiting entry to another time, by compare-and-set on `revision`. The entry is given
    /// anew because its body carries `run_at`.
    ///
    /// # Errors
    /// [`StorageErrorKind::Conflict`] if it is not, or no longer, at that revision.
    async fn reschedule(&self, entry: Entry, revision: u64) -> Result<()>;

    /// Removes the dead letter of an id; `false` if there was none.
    async fn remove_dead_letter(&self, id: &JobId) -> Result<bool>;

    // ---- Due jobs --------------------------------------------------------------------------------------------

    /// Opens the feed of entries that wait for their time or for other jobs. A standby may hold it open to keep it warm.
    async fn open_due_feed(&self) -> Result<Box<dyn DueFeed>>;

    /// The scheduled entries of these ids, with bodies; `None` where there is none.
    async fn get_scheduled(&self, ids: &[JobId]) -> Result<Vec<Option<ScheduledEntry>>>;

    /// Moves due entries into their queues. One outcome per promotion, in order.
    async fn promote(&self, promotions: Vec<Promotion>) -> Vec<Result<Promoted>>;

    // ---- Results ---------------------------------------------------------------------------------------------

    /// The stored result of an id, if one is kept and has not expired.
    async fn get_result(&self, id: &JobId) -> Result<Option<StoredResult>>;

    /// Waits for a result with a revision over `newer_than`, pushed where the store can push. `None` at the timeout.
    async fn wait_result(&self, id: &JobId, newer_than: u64, timeout: Duration) -> Result<Option<StoredResult>>;

    /// Stores what is left of jobs that ended in another store: dead letter, then result, so that a result says that all
    /// is there. One outcome each, in order. An id that lives here, or of which a result or (where none comes) a dead letter
    /// is here, is [`Enqueued::Duplicate`], and what is here stays. Idempotent.
    async fn store_remains(&self, remains: Vec<Remains>) -> Vec<Result<Enqueued>>;

    /// Removes the result of an id, if it is at `revision`; `false` if there was nothing to remove.
    async fn remove_result(&self, id: &JobId, revision: u64) -> Result<bool>;

    /// Opens a feed of results, to follow many at once. It follows nothing yet.
    async fn open_result_feed(&self) -> Result<Box<dyn ResultFeed>>;

    /// Removes what has expired (results, key-value entries, events), at most about `limit` items; returns how many. The scheduler's
    /// leader calls it; cheap when there is nothing to do.
    async fn sweep(&self, limit: usize) -> Result<usize>;

    /// Finishes, or takes back, each [`end`](Self::end) whose caller died on the way, at most `limit`; returns how many.
    /// The scheduler's leader calls it every few seconds. Nothing to do for a store that ends jobs in one transaction.
    async fn finish_orphans(&self, limit: usize) -> Result<usize>;

    // ---- Events ----------------------------------------------------------------------------------------------

    /// Adds batches of events to the log, in order, all or none where the store can. Need not survive a power cut.
    /// Never stands in the way of jobs for long: at most one call at a time comes from one process.
    async fn append_events(&self, batches: Vec<EventBatch>) -> Result<()>;

    /// One page of the log.
    async fn read_events(&self, range: &EventRange) -> Result<EventPage>;

    /// What of the log is kept.
    async fn event_bounds(&self) -> Result<EventBounds>;

    /// Follows the log from a position on: what comes after it, first what is there.
    async fn tail_events(&self, after: u64) -> Result<Box<dyn EventFeed>>;

    // ---- Key-value -------------------------------------------------------------------------------------------

    /// The live value of a key; one that has expired does not exist.
    async fn kv_get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>>;

    /// Creates a key and returns its revision.
    ///
    /// # Errors
    /// [`StorageErrorKind::Conflict`] if it exists and has not expired.
    async fn kv_create(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64>;

    /// Replaces a key that is at `revision` and returns the new revision; `ttl` counts anew.
    ///
    /// # Errors
    /// [`StorageErrorKind::Conflict`] if it is not at that revision.
    async fn kv_update(
        &self,
        bucket: Bucket,
        key: &str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<u64>;

    /// Removes a key, if it is at `revision` where one is given; `false` if there was nothing to remove. The key can be
    /// created again at once.
    async fn kv_delete(&self, bucket: Bucket, key: &str, revision: Option<u64>) -> Result<bool>;

    /// All live entries whose key starts with `prefix`.
    async fn kv_list(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>>;

    /// Watches keys that start with `prefix`: [`KvChange::Restart`], the current state, [`KvChange::Current`], then every
    /// change (at least the last one of each key), also across reconnects.
    async fn kv_watch(&self, bucket: Bucket, prefix: &str) -> Result<Box<dyn KvWatch>>;
}

/// A shared store.
pub type SharedStorage = Arc<dyn Storage>;
