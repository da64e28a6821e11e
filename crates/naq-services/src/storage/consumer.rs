//! How a worker gets jobs and keeps them: [`Consumer`], [`Claim`], [`Lease`], [`Heartbeat`].
//!
//! Invariant: a claimed job is nobody else's until its lease runs out; the lease is kept by extension, not by length. A
//! consumer never holds more than was demanded of it, and what it hands out it forgets: buffering, order among lanes,
//! extension and hand-back are the worker's, the same on every backend.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::{Address, JobId, Priority, QueueName, Timestamp};

use super::{Bucket, Result, StorageError, StoredResult};

/// What a consumer serves.
#[derive(Clone)]
pub struct ConsumerOptions {
    /// Who claims; shown as the job's worker.
    pub worker_id: String,
    /// The queues, in the worker's order.
    pub queues: Vec<QueueOptions>,
    /// Answers, from the worker's memory, who runs a job. A backend whose store does not know it serves this to others.
    pub running: Arc<dyn RunningJobs>,
}

impl fmt::Debug for ConsumerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerOptions")
            .field("worker_id", &self.worker_id)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// One queue of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueOptions {
    /// Its name.
    pub name: QueueName,
    /// How long a claim lasts without extension. At least one second.
    pub lease: Duration,
    /// At most so many jobs of each priority of this queue are claimed at once by all workers together; `None` for no
    /// limit.
    pub max_ack_pending: Option<u32>,
}

/// What a worker runs at the moment, as it knows itself. Called from any thread; must not block.
pub trait RunningJobs: Send + Sync {
    /// Where and since when a job runs, if it runs here.
    fn running(&self, id: &JobId) -> Option<RunningAt>;
}

/// Where a job runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunningAt {
    /// The worker.
    pub worker_id: String,
    /// When the handler was started.
    pub started_at: Timestamp,
}

/// One priority of one queue of a consumer: the unit of demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Index into [`ConsumerOptions::queues`].
    pub queue: usize,
    /// The priority within it.
    pub priority: Priority,
}

/// How many more jobs a worker takes from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// Most urgent lane first, each with how many jobs it and the lanes before it may deliver together. A store that
    /// cannot see across lanes may deliver so many from each. Lanes that are not named deliver none.
    pub lanes: Vec<(Lane, usize)>,
}

impl Demand {
    /// Whether no lane may deliver anything.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.most() == 0
    }

    /// The most that all lanes may deliver together, in a store that sees across them.
    #[must_use]
    pub fn most(&self) -> usize {
        self.lanes.iter().map(|(_, count)| *count).max().unwrap_or(0)
    }

    /// Accounts for a delivery from a lane.
    pub fn delivered(&mut self, lane: Lane) {
        if let Some(at) = self.lanes.iter().position(|(other, _)| *other == lane) {
            for (_, count) in &mut self.lanes[at..] {
                *count = count.saturating_sub(1);
            }
        }
    }
}

/// The receiving end of a worker.
#[async_trait]
pub trait Consumer: Send {
    /// Replaces the demand. Counts from this call on: jobs handed out by [`next`](Self::next) after it reduce it. Jobs
    /// that are on their way under an earlier demand may still arrive. Does not block.
    fn demand(&mut self, demand: Demand);

    /// The next event. Waits while there is none; never ends.
    ///
    /// # Cancel safety
    /// Cancel safe: no claim is lost by dropping the future.
    async fn next(&mut self) -> ConsumerEvent;

    /// Stops claiming and gives back at once what had arrived and was not handed out. When it returns, no claim of this
    /// consumer is outstanding but those handed out.
    async fn close(self: Box<Self>) -> Result<()>;
}

/// What a consumer reports.
#[derive(Debug)]
pub enum ConsumerEvent {
    /// Jobs, at least one; within a lane in the order of the queue.
    Claimed(Vec<Claim>),
    /// These lanes of the demand have nothing more that can be claimed; what they had has been handed out before. Each lane
    /// is reported after it was raised from a demand of nothing, and after each delivery that left it empty (it may be
    /// reported again): a worker may now start less urgent jobs.
    Empty(Vec<Lane>),
    /// The store failed; the consumer goes on trying with backoff. For logs and health, at most one a second.
    Trouble(StorageError),
}

/// A job that is this worker's for now. It must end in exactly one of: a settlement, a hand-back, or a lost lease.
#[derive(Debug)]
#[must_use = "a claim that is dropped comes back only when its lease runs out"]
pub struct Claim {
    /// The right to it.
    pub lease: Lease,
    /// Which lane it came from.
    pub lane: Lane,
    /// Where it lies.
    pub address: Address,
    /// The encoded job.
    pub body: Bytes,
    /// It may have been delivered before, or may have ended already: it must be reviewed before it starts.
    pub doubtful: bool,
}

/// The right to a claimed job, to be shown at extension, settlement and hand-back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// How the backend knows the claim again; opaque to everyone else.
    pub token: Arc<str>,
    /// When it can have begun at the earliest, as [`uptime`](super::uptime): what took long to arrive is not fresh.
    pub since: Duration,
    /// How long it lasts, and from each confirmed extension on.
    pub duration: Duration,
}

/// What earlier deliveries of a doubtful claim left behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// The result, if one is stored.
    pub result: Option<StoredResult>,
    /// The `run` of its entry in the scheduled store, if it has one there.
    pub scheduled_run: Option<u32>,
    /// An earlier delivery was neither handed back nor settled: its worker may have died over it.
    pub suspect: bool,
}

/// A worker's signs of life, over a connection of its own: they never stand behind the work of the store.
#[async_trait]
pub trait Heartbeat: Send + Sync {
    /// Extends leases by their duration from now. One state per lease, in order. Bounded by a third of the shortest
    /// lease; leases without an answer by then are [`LeaseState::Unknown`].
    async fn extend(&self, leases: &[Lease]) -> Vec<LeaseState>;

    /// Puts a key, whatever is there; it lives for `ttl` from now.
    async fn put(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Duration) -> Result<()>;
}

/// What an extension found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Extended, and the store confirmed it.
    Held,
    /// Somebody else's now, or run out. Also settled, where the store remembers that; a worker does not ask for those.
    Lost,
    /// The store did not answer.
    Unknown,
}
