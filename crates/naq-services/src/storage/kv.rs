//! The small key-value side of a store: locks, the worker registry, schedules, control flags, unique keys.
//!
//! Invariant: keys are `[A-Za-z0-9_=/.-]`; a change is by creation or by revision, never blind; an expired key does not
//! exist for any reader, whether or not it has been swept.

use async_trait::async_trait;
use bytes::Bytes;

/// What kind of thing a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Recurring jobs, by schedule id.
    Schedules,
    /// Live workers, by worker id.
    Workers,
    /// Leader leases.
    Locks,
    /// `pause.<queue>`, `cancel.<id>`, `suspect.<id>`.
    Control,
    /// Unique keys, and `id.<id>` for ids that callers chose.
    Unique,
    /// How far running jobs say they are, by job id.
    Progress,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Self; 6] =
        [Self::Schedules, Self::Workers, Self::Locks, Self::Control, Self::Unique, Self::Progress];
}

/// One key as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// For compare-and-set; grows with every change in the bucket.
    pub revision: u64,
}

/// One change of a watched key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvChange {
    /// The watch begins, or begins anew after a reconnect: forget everything, the whole state follows as
    /// [`Put`](Self::Put)s. Always the first event.
    Restart,
    /// The key has this value now.
    Put(KvEntry),
    /// The key is gone: deleted or expired.
    Gone(String),
    /// Everything that existed at the last [`Restart`](Self::Restart) has been reported.
    Current,
}

/// A running watch. Dropping it ends it.
#[async_trait]
pub trait KvWatch: Send {
    /// The next change. Waits while there is none.
    ///
    /// # Cancel safety
    /// Cancel safe: no change is lost by dropping the future.
    async fn next(&mut self) -> KvChange;
}
