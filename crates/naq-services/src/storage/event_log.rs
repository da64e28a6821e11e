//! The log of events as a store keeps it: batches in the order of their arrival, each at a position.
//!
//! Invariant: a store reads the fields of a batch and never its body. Positions grow and are never given twice, also
//! after the oldest batches were dropped for their age or for the size of all. What is said of times and jobs when
//! reading only spares work: a store may give more than was asked for, never less.

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::Timestamp;
pub use naq_models::event::EventBatch;

/// How long events are kept. The oldest are dropped first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventRetention {
    /// At most so old.
    pub max_age: std::time::Duration,
    /// At most so many bytes together.
    pub max_bytes: u64,
}

impl Default for EventRetention {
    /// As in an empty configuration.
    fn default() -> Self {
        let stream = naq_config::EventsConfig::default().stream;
        Self { max_age: stream.max_age, max_bytes: stream.max_bytes.0 }
    }
}

/// A batch as it lies in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvents {
    /// Its place in the log, at least 1.
    pub position: u64,
    /// The encoded events.
    pub body: Bytes,
}

/// Which part of the log to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRange {
    /// Only positions after this; 0 for all.
    pub after: u64,
    /// Only positions up to this.
    pub upto: u64,
    /// Batches that lie wholly before this need not come.
    pub since: Option<Timestamp>,
    /// Batches that lie wholly after this need not come.
    pub until: Option<Timestamp>,
    /// Batches without this [fingerprint](naq_models::event::fingerprint) of a job need not come.
    pub job: Option<u32>,
    /// At most so many batches, at least 1.
    pub limit: usize,
}

impl EventRange {
    /// The first `limit` batches of the whole log.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { after: 0, upto: u64::MAX, since: None, until: None, job: None, limit }
    }
}

/// One page of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventPage {
    /// What was found, in order.
    pub batches: Vec<StoredEvents>,
    /// Where the next page begins, as its [`EventRange::after`]; `None` on the last.
    pub next: Option<u64>,
}

/// What of the log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventBounds {
    /// The position of the oldest batch that is kept; beyond `last` if none is.
    pub first: u64,
    /// The last position that was given; 0 if none was.
    pub last: u64,
}

/// The log followed live.
#[async_trait]
pub trait EventFeed: Send {
    /// The next batches, at least one, in order. Waits while there are none; never ends: a store that fails is tried
    /// again. Batches that were dropped for their age or size before they were read are passed over.
    ///
    /// # Cancel safety
    /// Cancel safe: no batch is lost by dropping the future.
    async fn next(&mut self) -> Vec<StoredEvents>;
}
