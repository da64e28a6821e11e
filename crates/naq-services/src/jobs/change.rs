//! Changing a job from outside: cancel, retry, reschedule.
//!
//! Invariant: look, decide, one guarded move of the seam. Whoever comes second learns what the first has made of the
//! job; no call changes a job that has ended, but `retry`, which starts a new life.

use bytes::Bytes;
use naq_models::{
    Address, DecodeError, EventType, Job, JobError, JobId, JobResult, JobStatus, Priority, RawJson, Timestamp,
    WireFormat, error_type, wire,
};
use serde::Serialize;

use super::{
    JobService, JobServiceError, JobServiceErrorKind, Receipt, Result,
    enqueue::{duplicate_receipt, receipt},
    sight::Trace,
};
use crate::storage::{Ended, Ending, Enqueued, ResultRecord};

/// How often a move is tried anew after the job moved under it.
const MOVED_TRIES: usize = 4;

/// What became of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CancelOutcome {
    /// The job is cancelled. If it ran, its worker has been told; its handler stops when it next looks.
    Cancelled {
        /// Where it stood.
        was: JobStatus,
    },
    /// It had ended before.
    AlreadyEnded {
        /// How; `None` if that is not kept.
        status: Option<JobStatus>,
    },
}

impl JobService {
    /// Cancels a job that is scheduled, waiting, pending, running or between two attempts.
    ///
    /// # Errors
    /// [`JobServiceErrorKind::NotFound`]; [`JobServiceErrorKind::Undecodable`] if its bytes are not a job.
    pub async fn cancel(&self, id: &JobId, reason: &str) -> Result<CancelOutcome> {
        self.cancel_as(id, error_type::CANCELLED, reason).await
    }

    /// The same with an error type of the caller's.
    pub(super) async fn cancel_as(&self, id: &JobId, error_type: &str, reason: &str) -> Result<CancelOutcome> {
        let mut traces = self.traces(id).await?;
        traces.sort_by_key(Trace::rank);
        let newest = traces.pop().ok_or_else(|| super::not_found(id))?;
        let was = newest.status();
        if was.is_terminal() {
            // A cancel that was cut off after its result has steps left, which the same call makes again.
            if let (JobStatus::Cancelled, Some(left)) = (was, traces.pop())
                && let Some(ending) = self.cancellation(left, error_type, reason).await?
            {
                let ended = self.storage().end(ending).await;
                ended.map_err(|source| JobServiceError::storage(format!("cannot cancel job {id}"), source))?;
            }
            return Ok(CancelOutcome::AlreadyEnded { status: Some(was) });
        }
        let ending =
            self.cancellation(newest, error_type, reason).await?.expect("what is not terminal is queued or scheduled");
        let queue = ending.address.queue.clone();
        match self.storage().end(ending).await {
            Ok(Ended::Done) => {
                let error = JobError::new(error_type, reason, Timestamp::EPOCH);
                self.tell_cancelled([(id.clone(), queue)], &error);
                Ok(CancelOutcome::Cancelled { was })
            }
            Ok(Ended::AlreadyEnded) => match self.find(id).await {
                // Its worker had heard of this call and was faster.
                Ok(trace) if trace.status() == JobStatus::Cancelled => Ok(CancelOutcome::Cancelled { was }),
                Ok(trace) => Ok(CancelOutcome::AlreadyEnded {
                    status: Some(trace.status()).filter(|status| status.is_terminal()),
                }),
                Err(error) if error.kind() == JobServiceErrorKind::NotFound => {
                    Ok(CancelOutcome::AlreadyEnded { status: None })
                }
                Err(error) => Err(error),
            },
            Err(source) => Err(JobServiceError::storage(format!("cannot cancel job {id}"), source)),
        }
    }

    /// The end of a job that is queued or scheduled.
    async fn cancellation(&self, live: Trace, error_type: &str, reason: &str) -> Result<Option<Ending>> {
        let (address, job) = match live {
            Trace::Queued { address, job, .. } => (address, job),
            Trace::Scheduled { entry, job } => (entry.address, job),
            Trace::Ended { .. } | Trace::Dead { .. } => return Ok(None),
        };
        let job = job.map_err(|cause| undecodable("cancel", &address.id, cause))?;
        let error = JobError::new(error_type, reason, self.store_time().await?).permanent();
        let (result, unique_key) = (self.cancelled_result(&job, error), job.key_freed_at_end());
        Ok(Some(Ending { address, result, dead_letter: None, unique_key }))
    }

    /// Starts a new life of a failed or cancelled job: first attempt, at once; one that depends on others waits for them
    /// again.
    ///
    /// # Errors
    /// [`JobServiceErrorKind::Conflict`] if it is neither, or if nothing is kept to start it from;
    /// [`JobServiceErrorKind::KeyTaken`] if another job has its unique key by now;
    /// [`JobServiceErrorKind::Undecodable`] if its bytes are not a job.
    pub async fn retry(&self, id: &JobId) -> Result<Receipt> {
        let traces = self.traces(id).await?;
        let generation = traces.iter().map(revision).max().unwrap_or(0);
        let (mut dead, others): (Vec<_>, Vec<_>) =
            traces.into_iter().partition(|trace| matches!(trace, Trace::Dead { .. }));
        let job = match (Trace::newest(others), dead.pop()) {
            (None, None) => return Err(super::not_found(id)),
            (None, Some(dead)) => job_of_dead(dead)?,
            // The result of a failure is newer than its dead letter, which has the job.
            (Some(Trace::Ended { result, .. }), Some(dead)) if result.status == JobStatus::Failed => job_of_dead(dead)?,
            (Some(Trace::Ended { result, .. }), _) => job_of_result(&result)?,
            // What is left of the life that the dead letter ended.
            (Some(live), Some(dead)) if live.rank() < dead.rank() => job_of_dead(dead)?,
            // A retry that was cut off after it had published: its last step remains.
            (Some(live), Some(_)) => return self.finish_retry(id, duplicate_receipt(&live)).await,
            (Some(live), None) => return Err(not_ended(id, live.status())),
        };
        self.reborn(job, generation).await
    }

    /// Moves a job that waits for its time to another time; one in the past makes it due at once.
    ///
    /// # Errors
    /// [`JobServiceErrorKind::Conflict`] if it does not wait (any more).
    pub async fn reschedule(&self, id: &JobId, time: Timestamp) -> Result<Receipt> {
        for _ in 0..MOVED_TRIES {
            let (entry, job) = match self.find(id).await? {
                Trace::Scheduled { entry, job } => (entry, job),
                other => {
                    let message = format!("cannot reschedule job {id}: it is {}", other.status());
                    return Err(JobServiceError::new(JobServiceErrorKind::Conflict, message)
                        .with_hint("only scheduled, retry and waiting jobs have a time that can be moved"));
                }
            };
            let mut job = job.map_err(|cause| undecodable("reschedule", id, cause))?;
            job.run_at = Some(time);
            let moved = self.sized_entry(&job, entry.status)?;
            let receipt = receipt(&moved);
            match self.storage().reschedule(moved, entry.revision).await {
                Ok(()) => {
                    self.tell_changed(EventType::Rescheduled, &receipt, Some(time));
                    return Ok(receipt);
                }
                Err(source) if source.kind() == crate::StorageErrorKind::Conflict => {}
                Err(source) => return Err(JobServiceError::storage(format!("cannot reschedule job {id}"), source)),
            }
        }
        let message = format!("cannot reschedule job {id}: it keeps changing");
        Err(JobServiceError::new(JobServiceErrorKind::Conflict, message))
    }

    /// The result that cancels a job, with the job in it for `retry`; `None` if the job keeps none.
    pub(super) fn cancelled_result(&self, job: &Job, mut error: JobError) -> Option<ResultRecord> {
        error.retry_count = job.attempt.saturating_sub(1);
        let finished_at = error.timestamp;
        let mut result = JobResult { error: Some(error), ..JobResult::of(job, JobStatus::Cancelled, finished_at) };
        let envelope = wire::encode(job, WireFormat::Json).expect("JSON is always built in");
        let text = std::str::from_utf8(&envelope).expect("JSON is UTF-8");
        result.job = Some(RawJson::parse(text).expect("what was encoded as JSON is JSON"));
        let mut body = result.encode();
        if body.len() > self.body_limit().0 {
            // Cancelling counts for more than being able to start the job anew.
            result.job = None;
            body = result.encode();
        }
        self.record(job, JobStatus::Cancelled, body.into())
    }

    /// A result for the store, or `None` if the job keeps none.
    pub(super) fn record(&self, job: &Job, status: JobStatus, body: Bytes) -> Option<ResultRecord> {
        (!job.result_ttl.is_zero()).then(|| ResultRecord {
            status,
            body,
            generation: job.generation,
            ttl: job.result_ttl,
        })
    }

    pub(super) async fn reborn(&self, job: Job, generation: u64) -> Result<Receipt> {
        let id = job.id.clone();
        let status = if job.depends_on.is_empty() { JobStatus::Pending } else { JobStatus::Waiting };
        let job = job.reborn(generation);
        let entry = self.sized_entry(&job, status)?;
        self.take_for_new_life(&job).await?;
        let receipt = receipt(&entry);
        match self.storage().requeue(entry).await {
            Ok(Enqueued::Stored) => {
                self.tell_changed(EventType::Requeued, &receipt, None);
                Ok(receipt)
            }
            Ok(Enqueued::Duplicate) => Ok(duplicate_receipt(&self.find(&id).await?)),
            Err(source) => Err(JobServiceError::storage(format!("cannot retry job {id}"), source)),
        }
    }

    async fn finish_retry(&self, id: &JobId, receipt: Receipt) -> Result<Receipt> {
        match self.storage().remove_dead_letter(id).await {
            Ok(_) => Ok(receipt),
            Err(source) => Err(JobServiceError::storage(format!("cannot retry job {id}"), source)),
        }
    }
}

fn revision(trace: &Trace) -> u64 {
    match trace {
        Trace::Ended { revision, .. } => *revision,
        _ => 0,
    }
}

fn job_of_dead(dead: Trace) -> Result<Job> {
    match dead {
        Trace::Dead { letter, job } => job.map_err(|cause| undecodable("retry", &letter.address.id, cause)),
        other => Err(not_ended(other.id(), other.status())),
    }
}

fn job_of_result(result: &JobResult) -> Result<Job> {
    let id = &result.id;
    let nothing_kept = || {
        let message = format!("cannot retry job {id}: nothing is kept of it to start it from");
        JobServiceError::new(JobServiceErrorKind::Conflict, message).with_hint("enqueue it anew")
    };
    if result.status == JobStatus::Completed {
        return Err(not_ended(id, result.status));
    }
    let envelope = result.job.as_ref().ok_or_else(nothing_kept)?;
    let fallback = Address {
        id: id.clone(),
        queue: result.queue.clone(),
        priority: Priority::default(),
        stored_at: result.enqueued_at,
    };
    let job = wire::decode_submission(envelope.get().as_bytes(), fallback)
        .map_err(|cause| undecodable("retry", id, cause))?;
    // The result's address is where it lies; what it holds does not speak for another job.
    Ok(Job { id: id.clone(), ..job })
}

fn not_ended(id: &JobId, status: JobStatus) -> JobServiceError {
    let message = format!("cannot retry job {id}: it is {status}");
    JobServiceError::new(JobServiceErrorKind::Conflict, message)
        .with_hint("only failed and cancelled jobs can be retried; enqueue a new job to run a completed one again")
}

pub(super) fn undecodable(operation: &str, id: &JobId, cause: DecodeError) -> JobServiceError {
    let message = format!("cannot {operation} job {id}: its bytes cannot be read");
    match cause {
        DecodeError::BincodeNotBuilt => JobServiceError::new(JobServiceErrorKind::NotBuilt, message)
            .with_hint("use a naq built with feature bincode"),
        _ => JobServiceError::new(JobServiceErrorKind::Undecodable, message)
            .with_hint("`naq dead show` prints what lies with the dead letters; `naq dead purge` removes it"),
    }
    .with_source(cause)
}
