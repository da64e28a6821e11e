//! How jobs end or move on: [`Settlement`] (with a lease), [`Ending`] (without), [`Promotion`], and what is kept.
//!
//! Invariant: a terminal result is written once per life. Its guard is the generation: it may replace exactly the result
//! revision that this life started from (0: none).

use std::time::Duration;

use bytes::Bytes;
use naq_models::{Address, JobError, JobId, JobStatus, Timestamp};

use super::{Entry, Lease};

/// The result of a life, on its way into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultRecord {
    /// `completed`, `failed` or `cancelled`.
    pub status: JobStatus,
    /// The encoded [`naq_models::JobResult`].
    pub body: Bytes,
    /// The revision it may replace; 0 if there must be none. If that one has expired meanwhile, none is as good.
    pub generation: u64,
    /// How long it is kept, counted from the store's now.
    pub ttl: Duration,
}

/// A result as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredResult {
    /// Whose.
    pub id: JobId,
    /// The encoded [`naq_models::JobResult`].
    pub body: Bytes,
    /// Grows with every result that a store takes; unique within the store.
    pub revision: u64,
    /// Until when it is kept, by the store's clock.
    pub expires_at: Timestamp,
}

/// A job that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it came from; `stored_at` is when it became a dead letter.
    pub address: Address,
    /// The original bytes, whether or not they decode.
    pub body: Bytes,
    /// Why.
    pub error: JobError,
    /// Its kind, if it could be decoded.
    pub kind: Option<String>,
}

/// What happens to a leased job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// The right to do it.
    pub lease: Lease,
    /// Where the job lies.
    pub address: Address,
    /// What happens.
    pub action: Action,
    /// The lease is in doubt: only a terminal result may be created, and only if that wins is the job removed.
    pub fenced: bool,
    /// The job may have an entry in the scheduled store that has to go (it was promoted or redelivered).
    pub clear_scheduled: bool,
}

/// See [`Settlement`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It has ended. Order: result, dead letter, unique key, scheduled entry, removal from the queue; where no result is
    /// given, the unique key comes last.
    End {
        /// `None` if no result is to be kept, or if one already exists (then only the rest is completed).
        result: Option<ResultRecord>,
        /// Given if it failed.
        dead_letter: Option<DeadLetter>,
        /// The key in [`Bucket::Unique`](super::Bucket::Unique) that goes if its value names this job
        /// ([`UniqueHolder::names`](naq_models::UniqueHolder::names)). Without one nothing is looked at.
        unique_key: Option<String>,
    },
    /// It waits for its next run. Order: scheduled entry, removal from the queue.
    Again(Entry),
}

/// What became of a [`Settlement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Done as asked.
    Done,
    /// Another result was there first. The job is out of the queue all the same.
    AlreadyEnded,
    /// The lease was lost; nothing was changed.
    LeaseLost,
}

/// Ends a job without a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Where the job lies.
    pub address: Address,
    /// `None` if no result is to be kept.
    pub result: Option<ResultRecord>,
    /// For a scheduled entry that cannot be decoded.
    pub dead_letter: Option<DeadLetter>,
    /// As in [`Action::End`]; removed after the job.
    pub unique_key: Option<String>,
}

/// What became of an [`Ending`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// This call ended it.
    Done,
    /// It had ended before.
    AlreadyEnded,
}

/// What is left of a job that has ended in another store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// Where the job lay.
    pub address: Address,
    /// Its result, if one is kept; of generation 0.
    pub result: Option<ResultRecord>,
    /// Its dead letter, if it failed and nobody has dealt with it.
    pub dead_letter: Option<DeadLetter>,
}

/// Moves a due entry into its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// The revision of the scheduled entry that this was computed from.
    pub revision: u64,
    /// The job as it enters its queue, one `run` further, status `pending`.
    pub entry: Entry,
}

/// What became of a [`Promotion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promoted {
    /// It is in its queue.
    Done,
    /// The entry had changed or gone; nothing was moved.
    Superseded,
    /// The job had ended; the entry was dropped.
    AlreadyEnded,
}
