//! [`JobResult`]: how a job ended.
//!
//! Invariant: written once per life of a job, always as JSON, and never changed; only a new life may replace it, by
//! naming the revision it replaces.

use serde::{Deserialize, Serialize};

use crate::{Job, JobError, JobId, JobStatus, QueueName, RawJson, Timestamp};

/// Bytes of a usual result without its value, with room to spare: a buffer that grows is copied.
const RECORD: usize = 384;

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// Whose result this is.
    pub id: JobId,
    /// `completed`, `failed` or `cancelled`.
    pub status: JobStatus,
    /// What the handler returned, if it completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<RawJson>,
    /// Why it failed or was cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// The job's kind; empty if the job could not be decoded.
    #[serde(default)]
    pub kind: String,
    /// The job's queue.
    pub queue: QueueName,
    /// The attempt that ended it.
    pub attempt: u32,
    /// The worker that ended it; `None` if it never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// When it was due, if it was delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
    /// When the last attempt began; `None` if it never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The envelope of a cancelled job, from which it can be given a new life: it leaves no dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<RawJson>,
}

impl JobResult {
    /// The result of a job that ended with `status`, without value, error, worker or start.
    #[must_use]
    pub fn of(job: &Job, status: JobStatus, finished_at: Timestamp) -> Self {
        Self {
            id: job.id.clone(),
            status,
            result: None,
            error: None,
            kind: job.kind.clone(),
            queue: job.queue.clone(),
            attempt: job.attempt,
            worker_id: None,
            run_at: job.run_at,
            enqueued_at: job.enqueued_at,
            started_at: None,
            finished_at,
            job: None,
        }
    }

    /// The stored form: JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(RECORD + self.result.as_ref().map_or(0, |result| result.get().len()));
        serde_json::to_writer(&mut text, self).expect("a result holds only strings, numbers and valid JSON");
        text
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// If the bytes are not the JSON of a result.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
