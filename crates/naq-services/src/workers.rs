//! The list of live workers: what a worker says of itself, and how others read it.
//!
//! Invariant: an entry lives as long as its worker renews it and disappears by its time to live when the worker dies. It
//! is for people and dashboards; nothing is decided by it.

use naq_models::{JobId, Progress, QueueName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Service, ServiceError, ServiceManager, StorageError,
    storage::{Bucket, KvEntry, SharedStorage},
};

/// At most so many running jobs are named in an entry.
pub const RUNNING_NAMED_MAX: usize = 100;

/// A live worker, as it last said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Unique among all workers at all times.
    pub id: String,
    /// The name it was given, if it was.
    #[serde(default)]
    pub name: Option<String>,
    /// The host it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// The queues it serves, in its order, with weights if they have any (`mail:3`).
    pub queues: Vec<String>,
    /// How many jobs it runs at once.
    pub concurrency: usize,
    /// How many run now.
    pub running_count: usize,
    /// Those that run now, the longest-running first, at most [`RUNNING_NAMED_MAX`].
    pub running: Vec<RunningJob>,
    /// The version of naq it was built with.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it said this.
    pub seen_at: Timestamp,
    /// What it does.
    pub status: WorkerStatus,
}

impl WorkerInfo {
    /// The names of its queues, without their weights.
    pub fn queue_names(&self) -> impl Iterator<Item = &str> {
        self.queues.iter().map(|queue| queue.split(':').next().unwrap_or(queue))
    }
}

/// A job that a worker runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningJob {
    /// The job.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its queue.
    pub queue: QueueName,
    /// Its attempt.
    pub attempt: u32,
    /// When its handler was started.
    pub started_at: Timestamp,
    /// How far it says it is, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStatus {
    /// It waits for jobs.
    Idle,
    /// It runs at least one job.
    Busy,
    /// It was asked to stop and finishes what runs.
    Stopping,
}

/// The live workers of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WorkerRegistry {
    storage: SharedStorage,
}

impl WorkerRegistry {
    /// Those of this store.
    #[must_use]
    pub fn new(storage: SharedStorage) -> Self {
        Self { storage }
    }

    /// All live workers, by id.
    ///
    /// # Errors
    /// If the store cannot be read. Entries that cannot be read are passed over with a warning.
    pub async fn list(&self) -> Result<Vec<WorkerInfo>, StorageError> {
        let entries = self.storage.kv_list(Bucket::Workers, "").await?;
        let mut workers: Vec<WorkerInfo> = entries.iter().filter_map(read).collect();
        workers.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(workers)
    }
}

impl Service for WorkerRegistry {
    const NAME: &'static str = "list of workers";

    async fn build(manager: &ServiceManager) -> Result<Self, ServiceError> {
        Ok(Self::new(manager.storage().await?))
    }
}

fn read(entry: &KvEntry) -> Option<WorkerInfo> {
    serde_json::from_slice(&entry.value)
        .inspect_err(|error| tracing::warn!(key = entry.key, %error, "an unreadable worker entry is passed over"))
        .ok()
}
