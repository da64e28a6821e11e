//! [`JobService`]: everything that can be asked of and done to jobs, on any store.
//!
//! Invariant: holds the semantics and no state; what is decided here is decided for every backend. Each call is one
//! move of the seam, or a look followed by one move that is guarded against what changed in between.
//!
//! Not here: running jobs (naq-worker), when something is due (the scheduler), where jobs lie (the [`Storage`]).
//!
//! [`Storage`]: crate::Storage

use std::{sync::Arc, time::Duration};

use naq_config::{JobSerializer, NaqConfig, PAYLOAD_HEADROOM, QueuesConfig};
use naq_models::{QueueName, WireFormat};

use crate::{
    EventHook,
    new_job::JobDefaults,
    storage::{QueueOptions, SharedStorage, StorageInfo},
};

mod change;
mod child;
mod dead;
mod enqueue;
mod enqueue_all;
mod error;
mod list;
mod purge;
mod queue;
mod result;
mod sight;
mod tell;
mod unique;

pub use change::CancelOutcome;
pub use child::PARENT_ID;
pub use dead::{DeadLetterView, DeadPage, RetryReport};
pub use enqueue::Receipt;
pub use enqueue_all::MAX_TOGETHER;
pub use error::{JobServiceError, JobServiceErrorKind};
pub use list::{JobFilter, JobPage};
pub use queue::{PAUSE_PREFIX, QueueReport};
pub use result::{ResultState, ResultView, Standing};
pub(crate) use result::{no_result_kept, not_found, read_result};
pub use sight::JobStatusView;
pub use unique::{Admission, Submission, admit};

/// The shortest lease that the seam knows.
const MIN_LEASE: Duration = Duration::from_secs(1);

/// The result of a call of the [`JobService`].
pub type Result<T, E = JobServiceError> = std::result::Result<T, E>;

/// What the service needs to know beside the store.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSettings {
    /// How new jobs are written: `serialization.job_serializer`.
    pub format: WireFormat,
    /// What a job gets where its producer said nothing.
    pub defaults: JobDefaults,
    /// The largest body of a job, in bytes: `serialization.max_payload` less its headroom. The store's own limit may be
    /// lower and then counts.
    pub max_body: usize,
    /// How queues are to be opened.
    pub queues: QueuesConfig,
}

impl Default for JobSettings {
    /// What an empty configuration means.
    fn default() -> Self {
        Self::from(&NaqConfig::default())
    }
}

impl From<&NaqConfig> for JobSettings {
    fn from(config: &NaqConfig) -> Self {
        let max_body = config.serialization.max_payload.0.saturating_sub(PAYLOAD_HEADROOM);
        Self {
            format: match config.serialization.job_serializer {
                JobSerializer::Json => WireFormat::Json,
                JobSerializer::Bincode => WireFormat::Bincode,
            },
            defaults: JobDefaults {
                queue: config.queues.default.clone(),
                max_retries: config.jobs.max_retries,
                timeout: config.jobs.timeout,
                result_ttl: config.results.ttl,
            },
            max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
            queues: config.queues.clone(),
        }
    }
}

impl JobSettings {
    /// How a consumer is to open a queue. Everyone who opens it must say the same, or the store would be set up anew
    /// each time.
    #[must_use]
    pub fn options_of(&self, queue: &QueueName) -> QueueOptions {
        QueueOptions {
            name: queue.clone(),
            lease: self.queues.ack_wait_of(queue).max(MIN_LEASE),
            max_ack_pending: Some(self.queues.max_ack_pending_of(queue)),
        }
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
    events: EventHook,
}

impl JobService {
    /// A service over a store, which tells nobody what happens.
    #[must_use]
    pub fn new(storage: SharedStorage, settings: JobSettings) -> Self {
        Self { inner: Arc::new(Inner { storage, settings, events: EventHook::silent() }) }
    }

    /// The same service, telling what happens.
    #[must_use]
    pub fn with_events(&self, events: EventHook) -> Self {
        let Inner { storage, settings, .. } = &*self.inner;
        Self { inner: Arc::new(Inner { storage: Arc::clone(storage), settings: settings.clone(), events }) }
    }

    /// Where it tells what happens.
    #[must_use]
    pub fn events(&self) -> &EventHook {
        &self.inner.events
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
