//! Queues: their numbers, and whether they are paused.
//!
//! Invariant: the pause flag is one key of the store (`pause.<queue>`); workers watch it, producers ignore it.

use bytes::Bytes;
use naq_models::{EventType, QueueName, Timestamp};
use serde::Serialize;

use super::{JobService, JobServiceError, Result};
use crate::{
    StorageErrorKind,
    storage::{Bucket, QueueStats},
};

/// The start of a pause flag's key, in [`Bucket::Control`].
pub const PAUSE_PREFIX: &str = "pause.";

/// The numbers of one queue: what `naq queue stats` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueReport {
    /// Which queue.
    pub queue: QueueName,
    /// Whether workers leave it alone.
    pub paused: bool,
    /// Ready to run.
    pub pending: u64,
    /// The same by priority, 0 to 3.
    pub pending_by_priority: [u64; 4],
    /// Claimed by a worker.
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

impl QueueReport {
    fn new(stats: QueueStats, paused: bool) -> Self {
        Self {
            queue: stats.queue,
            paused,
            pending: stats.pending.iter().sum(),
            pending_by_priority: stats.pending,
            running: stats.running,
            scheduled: stats.scheduled,
            retry: stats.retry,
            waiting: stats.waiting,
            failed: stats.failed,
            oldest_pending: stats.oldest_pending,
        }
    }
}

fn key(queue: &QueueName) -> String {
    format!("{PAUSE_PREFIX}{queue}")
}

impl JobService {
    /// The numbers of all queues that ever held a job or are paused, by name.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn queues(&self) -> Result<Vec<QueueReport>> {
        let failed = |source| JobServiceError::storage("cannot read the numbers of the queues", source);
        let stats = self.storage().queue_stats(None).await.map_err(failed)?;
        let flags = self.storage().kv_list(Bucket::Control, PAUSE_PREFIX).await.map_err(failed)?;
        let mut paused: Vec<QueueName> =
            flags.iter().filter_map(|flag| QueueName::new(flag.key.strip_prefix(PAUSE_PREFIX)?).ok()).collect();
        let mut reports: Vec<QueueReport> = Vec::with_capacity(stats.len());
        for stats in stats {
            let is_paused = paused.contains(&stats.queue);
            paused.retain(|queue| *queue != stats.queue);
            reports.push(QueueReport::new(stats, is_paused));
        }
        reports.extend(paused.into_iter().map(|queue| QueueReport::new(QueueStats::empty(queue), true)));
        reports.sort_by(|a, b| a.queue.cmp(&b.queue));
        Ok(reports)
    }

    /// The numbers of one queue; zeros if it never held a job.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn queue(&self, queue: &QueueName) -> Result<QueueReport> {
        let stats =
            self.storage().queue_stats(Some(queue)).await.map_err(|source| {
                JobServiceError::storage(format!("cannot read the numbers of queue {queue}"), source)
            })?;
        let paused = self.is_paused(queue).await?;
        let stats = stats.into_iter().find(|stats| stats.queue == *queue);
        Ok(QueueReport::new(stats.unwrap_or_else(|| QueueStats::empty(queue.clone())), paused))
    }

    /// Lets workers start no more jobs of a queue; running ones go on, and jobs can be enqueued. `false` if it was
    /// paused before.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn pause(&self, queue: &QueueName) -> Result<bool> {
        match self.storage().kv_create(Bucket::Control, &key(queue), Bytes::from_static(b"{}"), None).await {
            Ok(_) => {
                self.tell_queue(EventType::QueuePaused, queue, None);
                Ok(true)
            }
            Err(source) if source.kind() == StorageErrorKind::Conflict => Ok(false),
            Err(source) => Err(JobServiceError::storage(format!("cannot pause queue {queue}"), source)),
        }
    }

    /// Lets workers start jobs of a queue again. `false` if it was not paused.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn resume(&self, queue: &QueueName) -> Result<bool> {
        let removed = self.storage().kv_delete(Bucket::Control, &key(queue), None).await;
        let removed =
            removed.map_err(|source| JobServiceError::storage(format!("cannot resume queue {queue}"), source))?;
        if removed {
            self.tell_queue(EventType::QueueResumed, queue, None);
        }
        Ok(removed)
    }

    /// Whether a queue is paused.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn is_paused(&self, queue: &QueueName) -> Result<bool> {
        let flag = self.storage().kv_get(Bucket::Control, &key(queue)).await;
        let flag = flag.map_err(|source| {
            JobServiceError::storage(format!("cannot see whether queue {queue} is paused"), source)
        })?;
        Ok(flag.is_some())
    }
}
