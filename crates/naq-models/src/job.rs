//! [`Job`]: the envelope, everything naq knows of one job.
//!
//! Invariant: what a reader does not know survives a round trip (`extra`); every field but `kind` and `args` has a
//! default, so that a foreign producer can leave it out. The JSON form is written and read in `wire`.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{JobError, JobId, Priority, QueueName, RawJson, RetryPolicy, Timestamp, duration::Seconds};

/// The default of [`Job::timeout`]: one hour.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
/// The default of [`Job::result_ttl`]: seven days.
pub const DEFAULT_RESULT_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The `meta` key of the id that ties a job to what led to it. It goes through retries, and on to child jobs.
pub const CORRELATION_ID: &str = "correlation_id";

/// One job. See `docs/protocol.md` for the meaning of each field on the wire.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// The handler's stable name.
    pub kind: String,
    /// The queue it belongs to, wherever it waits at the moment.
    pub queue: QueueName,
    /// An object (arguments by name) or an array (by position).
    pub args: RawJson,
    /// How urgent it is within its queue.
    pub priority: Priority,
    /// When it was first enqueued.
    pub enqueued_at: Timestamp,
    /// When it is or was due; `None` for at once.
    pub run_at: Option<Timestamp>,
    /// 1 on the first run; grows only when a failed attempt is followed by another.
    pub attempt: u32,
    /// Whether and when it runs again after an error.
    pub retry: RetryPolicy,
    /// How long one run may take.
    pub timeout: Duration,
    /// How long its result is kept; zero keeps none.
    pub result_ttl: Duration,
    /// Jobs that must end first.
    pub depends_on: Vec<JobId>,
    /// What happens when one of them does not complete.
    pub on_dependency_failure: OnDependencyFailure,
    /// The key that keeps others like it out.
    pub unique: Option<Unique>,
    /// The schedule that made it.
    pub schedule_id: Option<String>,
    /// Grows by one on every move: retry, snooze, promotion, requeue. 1 at first.
    pub run: u32,
    /// The result revision that this life starts from; 0 for the first life.
    pub generation: u64,
    /// The error of the attempt before this one.
    pub last_error: Option<JobError>,
    /// What travels beside the arguments: trace context, tenant, the user's own.
    pub meta: BTreeMap<String, RawJson>,
    /// Fields this version does not know, kept as they came.
    pub extra: BTreeMap<String, RawJson>,
}

impl Job {
    /// A job with every default, due at once.
    #[must_use]
    pub fn new(id: JobId, kind: impl Into<String>, args: RawJson, enqueued_at: Timestamp) -> Self {
        Self {
            id,
            kind: kind.into(),
            queue: QueueName::default(),
            args,
            priority: Priority::default(),
            enqueued_at,
            run_at: None,
            attempt: 1,
            retry: RetryPolicy::default(),
            timeout: DEFAULT_TIMEOUT,
            result_ttl: DEFAULT_RESULT_TTL,
            depends_on: Vec::new(),
            on_dependency_failure: OnDependencyFailure::default(),
            unique: None,
            schedule_id: None,
            run: 1,
            generation: 0,
            last_error: None,
            meta: BTreeMap::new(),
            extra: BTreeMap::new(),
        }
    }

    /// What ties this job to what led to it: `meta.correlation_id`, as its producer or parent gave it (what is not a
    /// string is taken as its JSON), or its own id if nobody did.
    #[must_use]
    pub fn correlation_id(&self) -> Cow<'_, str> {
        match self.meta.get(CORRELATION_ID) {
            Some(given) => given.to::<String>().map_or(Cow::Borrowed(given.get()), Cow::Owned),
            None => Cow::Borrowed(self.id.as_str()),
        }
    }

    /// The job as it enters a new life (`dead retry`, `job retry`): first attempt, due at once, one move further, and
    /// expecting the result revision `generation` (0 if there is none any more).
    #[must_use]
    pub fn reborn(mut self, generation: u64) -> Self {
        self.attempt = 1;
        self.run_at = None;
        self.run = self.run.saturating_add(1);
        self.generation = generation;
        self.last_error = None;
        self.meta.remove(crate::outcome::UNKNOWN_SINCE);
        self
    }

    /// The job as it leaves the scheduled store for its queue: one move further, nothing else.
    #[must_use]
    pub fn promoted(mut self) -> Self {
        self.run = self.run.saturating_add(1);
        self
    }
}

/// What happens to a job when one it depends on fails, is cancelled, or does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDependencyFailure {
    /// It is cancelled too.
    #[default]
    Cancel,
    /// It runs all the same.
    Run,
}

/// A key that keeps other jobs like this one out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unique {
    /// The key itself.
    pub key: String,
    /// How long it holds.
    #[serde(rename = "while", default)]
    pub holds: UniqueWhile,
    /// For [`UniqueWhile::Ttl`]: how long.
    #[serde(default)]
    pub ttl: Option<Seconds>,
}

/// How long a unique key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UniqueWhile {
    /// Until the job first starts.
    Pending,
    /// Until the job has ended.
    #[default]
    Active,
    /// For a time.
    Ttl,
}
