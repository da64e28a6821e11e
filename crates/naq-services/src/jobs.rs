//! [`JobService`]: everything that can be asked of and done to jobs, on any store.
//!
//! Invariant: holds the semantics and no state; what is decided here is decided for every backend. Each call is one
//! move of the seam, or a look followed by one move that is guarded against what changed in between.
//!
//! Not here: running jobs (naq-worker), when something is due (the scheduler), where jobs lie (the [`Storage`]).
//!
//! [`Storage`]: crate::Storage

use std::{collections::HashMap, sync::Arc, time::Duration};

use naq_models::{QueueName, WireFormat};

use crate::{
    new_job::JobDefaults,
    storage::{QueueOptions, SharedStorage, StorageInfo},
};

mod change;
mod dead;
mod enqueue;
mod error;
mod list;
mod purge;
mod queue;
mod result;
mod sight;

pub use change::CancelOutcome;
pub use dead::{DeadLetterView, DeadPage, RetryReport};
pub use enqueue::Receipt;
pub use error::{JobServiceError, JobServiceErrorKind};
pub use list::{JobFilter, JobPage};
pub use queue::{PAUSE_PREFIX, QueueReport};
pub(crate) use result::no_result_kept;
pub use result::{ResultState, ResultView};
pub use sight::JobStatusView;

/// The result of a call of the [`JobService`].
pub type Result<T, E = JobServiceError> = std::result::Result<T, E>;

/// What the service needs to know beside the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSettings {
    /// How new jobs are written: `serialization.job_serializer`.
    pub format: WireFormat,
    /// What a job gets where its producer said nothing.
    pub defaults: JobDefaults,
    /// The largest body of a job, in bytes: `serialization.max_payload` less its headroom. The store's own limit may be
    /// lower and then counts.
    pub max_body: usize,
    /// How long a claim lasts: `queues.ack_wait`.
    pub lease: Duration,
    /// How many jobs of a queue may be claimed at once: `queues.max_ack_pending`.
    pub max_ack_pending: Option<u32>,
    /// Queues that differ in the two: `queues.configs`.
    pub queues: HashMap<QueueName, QueueOptions>,
}

impl Default for JobSettings {
    /// What an empty configuration means.
    fn default() -> Self {
        Self {
            format: WireFormat::default(),
            defaults: JobDefaults::default(),
            max_body: (1 << 20) - (64 << 10),
            lease: Duration::from_secs(30),
            max_ack_pending: Some(20_000),
            queues: HashMap::new(),
        }
    }
}

impl JobSettings {
    /// How a consumer is to open a queue. Everyone who opens it must say the same, or the store would be set up anew
    /// each time.
    #[must_use]
    pub fn options_of(&self, queue: &QueueName) -> QueueOptions {
        self.queues.get(queue).cloned().unwrap_or_else(|| QueueOptions {
            name: queue.clone(),
            lease: self.lease,
            max_ack_pending: self.max_ack_pending,
        })
    }
}

/// Jobs on a store: enqueue, look, wait, cancel, retry, list, purge. Cheap to clone; all clones are one service.
///
/// A dropped future leaves the store in one of the states before or after the call, and the caller does not learn
/// which; calls over several jobs may then have done a part.
#[derive(Debug, Clone)]
pub struct JobService {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    storage: SharedStorage,
    settings: JobSettings,
}

impl JobService {
    /// A service over a store.
    #[must_use]
    pub fn new(storage: SharedStorage, settings: JobSettings) -> Self {
        Self { inner: Arc::new(Inner { storage, settings }) }
    }

    /// The store.
    #[must_use]
    pub fn storage(&self) -> &SharedStorage {
        &self.inner.storage
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &JobSettings {
        &self.inner.settings
    }

    /// The largest job or result that fits, in bytes, and which setting says so.
    fn body_limit(&self) -> (usize, String) {
        let StorageInfo { backend, max_body, .. } = self.storage().info();
        if max_body < self.settings().max_body {
            (max_body, format!("the limit of the {backend} store"))
        } else {
            (self.settings().max_body, "serialization.max_payload less its headroom".to_owned())
        }
    }
}
