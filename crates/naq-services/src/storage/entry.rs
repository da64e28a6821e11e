//! Jobs as a store holds them: what enters ([`Entry`]), what waits ([`ScheduledEntry`], [`DueFeed`]), what is seen.
//!
//! Invariant: a store reads the fields here and never the body.

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::{Address, Job, JobId, JobStatus, QueueName, Timestamp, WireFormat, wire};

use super::{DeadLetter, Result, RunningAt, StoredResult};

/// A job on its way into a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it belongs; `stored_at` is its `enqueued_at`.
    pub address: Address,
    /// `pending` (to the queue) or `scheduled`, `retry`, `waiting` (to the scheduled store).
    pub status: JobStatus,
    /// When it is due; set for `scheduled` and `retry`.
    pub run_at: Option<Timestamp>,
    /// The job's kind, for lists.
    pub kind: String,
    /// The job's `run`.
    pub run: u32,
    /// The job's `gen`.
    pub generation: u64,
    /// The encoded job.
    pub body: Bytes,
}

impl Entry {
    /// Encodes a job for the given place.
    ///
    /// # Errors
    /// If the wire format was not built in.
    pub fn new(job: &Job, status: JobStatus, format: WireFormat) -> std::result::Result<Self, wire::EncodeError> {
        Ok(Self {
            address: Address {
                id: job.id.clone(),
                queue: job.queue.clone(),
                priority: job.priority,
                stored_at: job.enqueued_at,
            },
            status,
            run_at: job.run_at,
            kind: job.kind.clone(),
            run: job.run,
            generation: job.generation,
            body: wire::encode(job, format)?.into(),
        })
    }
}

/// What became of an [`Entry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It is stored durably.
    Stored,
    /// Its id is taken by a live job or a kept result; nothing was stored.
    Duplicate,
}

/// What became of entries that are stored all together or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnqueuedAll {
    /// All are stored durably.
    Stored,
    /// None is stored: the id of the entry at this place is taken by a live job, a kept result, or an entry before it.
    Taken(usize),
}

/// A job that waits for its time or for other jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledEntry {
    /// Where it will go.
    pub address: Address,
    /// `scheduled`, `retry` or `waiting`.
    pub status: JobStatus,
    /// When it is due.
    pub run_at: Option<Timestamp>,
    /// The job's `run`.
    pub run: u32,
    /// For compare-and-set.
    pub revision: u64,
    /// The encoded job.
    pub body: Bytes,
}

/// One line of a [`DueFeed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueEntry {
    /// The job.
    pub id: JobId,
    /// When it is due.
    pub run_at: Timestamp,
    /// For compare-and-set.
    pub revision: u64,
}

/// An entry that waits for other jobs, as a [`DueFeed`] reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingEntry {
    /// The job.
    pub id: JobId,
    /// For compare-and-set.
    pub revision: u64,
}

/// What waits: for its time, soonest first, or for other jobs. Work per call depends on what is due or new, not on how
/// much waits.
#[async_trait]
pub trait DueFeed: Send {
    /// Up to `max` entries due at or before `now`, soonest first. An entry stays in the feed until it leaves the
    /// scheduled store or changes its time; one that was removed over another connection may stay until
    /// [`Storage::get_scheduled`](super::Storage::get_scheduled) of this one has found it gone.
    async fn due(&mut self, now: Timestamp, max: usize) -> Result<Vec<DueEntry>>;

    /// When the soonest entry is due; `None` if nothing waits for a time.
    async fn next_due(&mut self) -> Result<Option<Timestamp>>;

    /// Up to `max` entries that wait for other jobs and have not been reported at their present revision. One may be
    /// reported again, and one that was removed meanwhile may be reported still.
    async fn waiting(&mut self, max: usize) -> Result<Vec<WaitingEntry>>;

    /// Returns when [`next_due`](Self::next_due) may have become sooner, or [`waiting`](Self::waiting) may have more.
    ///
    /// # Cancel safety
    /// Cancel safe: a change seen by a dropped call is reported by the next one.
    async fn changed(&mut self);
}

/// One trace of a job in a store.
#[derive(Debug, Clone, PartialEq)]
pub enum Sighting {
    /// In its queue, with the claim on it as far as the store or its worker tells.
    Queued {
        /// Where it lies.
        address: Address,
        /// The encoded job.
        body: Bytes,
        /// The worker that runs it.
        running: Option<RunningAt>,
    },
    /// In the scheduled store.
    Scheduled(ScheduledEntry),
    /// With the dead letters.
    Dead(DeadLetter),
    /// Ended, and the result is kept.
    Ended(StoredResult),
}

impl Sighting {
    /// Whose trace it is.
    #[must_use]
    pub fn id(&self) -> &JobId {
        match self {
            Self::Queued { address, .. } => &address.id,
            Self::Scheduled(entry) => &entry.address.id,
            Self::Dead(letter) => &letter.address.id,
            Self::Ended(result) => &result.id,
        }
    }
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFilter {
    /// Only this queue.
    pub queue: Option<QueueName>,
    /// Only these states. `pending` and `running` list the queue's entries; `failed` lists dead letters; `completed`
    /// and `cancelled` list results (which may hold any of the three terminal states). Empty: everything.
    pub statuses: Vec<JobStatus>,
    /// At most so many items a page; at least 1.
    pub limit: usize,
    /// [`ListPage::next`] of the page before.
    pub cursor: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListPage {
    /// What was found.
    pub items: Vec<Sighting>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// The numbers of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueStats {
    /// Which queue.
    pub queue: QueueName,
    /// Ready to run, by priority 0 to 3; does not count running ones.
    pub pending: [u64; 4],
    /// Claimed by a worker. On NATS also what was handed back until somebody claims it again.
    pub running: u64,
    /// Waiting for their time.
    pub scheduled: u64,
    /// Failed, waiting for their next attempt.
    pub retry: u64,
    /// Waiting for other jobs.
    pub waiting: u64,
    /// Dead letters.
    pub failed: u64,
    /// When the oldest pending job was stored.
    pub oldest_pending: Option<Timestamp>,
}

impl QueueStats {
    /// Its jobs in any state, and its dead letters.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        let others = self.running + self.scheduled + self.retry + self.waiting + self.failed;
        self.pending.iter().sum::<u64>() + others
    }

    /// A queue without jobs.
    #[must_use]
    pub fn empty(queue: QueueName) -> Self {
        Self { queue, pending: [0; 4], running: 0, scheduled: 0, retry: 0, waiting: 0, failed: 0, oldest_pending: None }
    }
}
