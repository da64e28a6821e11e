//! [`JobHandle`]: a job that was enqueued, and how to learn what became of it.
//!
//! Invariant: dropping a handle does nothing to the job; waiting is pushed by the store, not polled, and always bounded.

use std::{fmt, marker::PhantomData, time::Duration};

use naq_models::{JobError, JobId, JobResult, JobStatus, RawJson};
use serde::de::DeserializeOwned;

use crate::{
    jobs::{
        CancelOutcome, JobService, JobServiceError, JobServiceErrorKind, JobStatusView, Receipt, Result, no_result_kept,
    },
    progress::ProgressStream,
};

/// A job whose handler returns an `R`. Cheap to clone.
pub struct JobHandle<R = RawJson> {
    jobs: JobService,
    id: JobId,
    origin: Origin,
    output: PhantomData<fn() -> R>,
}

/// What is known of the job without asking.
#[derive(Debug, Clone)]
enum Origin {
    /// Stored by this handle's maker: any result is its result.
    Enqueued { receipt: Receipt, result_ttl: Duration },
    /// There before: only the store knows in which life it is.
    Existing { receipt: Option<Receipt> },
}

impl<R> JobHandle<R> {
    /// How long [`result`](Self::result) waits.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);

    /// A handle on any job by its id, whether or not there is one.
    #[must_use]
    pub fn new(jobs: JobService, id: JobId) -> Self {
        Self { jobs, id, origin: Origin::Existing { receipt: None }, output: PhantomData }
    }

    pub(crate) fn enqueued(jobs: JobService, receipt: Receipt, result_ttl: Duration) -> Self {
        let id = receipt.job_id.clone();
        let origin = if receipt.duplicate {
            Origin::Existing { receipt: Some(receipt) }
        } else {
            Origin::Enqueued { receipt, result_ttl }
        };
        Self { jobs, id, origin, output: PhantomData }
    }

    /// The job's id.
    #[must_use]
    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// What enqueueing led to; `None` for a handle that was made from an id.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        match &self.origin {
            Origin::Enqueued { receipt, .. } => Some(receipt),
            Origin::Existing { receipt } => receipt.as_ref(),
        }
    }

    /// Where the job stands.
    ///
    /// # Errors
    /// As [`JobService::status`].
    pub async fn status(&self) -> Result<JobStatusView> {
        self.jobs.status(&self.id).await
    }

    /// Follows how far the job says it is ([`JobContext::progress`](crate::JobContext::progress)): first what it said last, if
    /// anything, then each report as it comes, until the job has ended. Ends after
    /// [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT) at the latest.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn progress(&self) -> Result<ProgressStream>
    where
        R: 'static,
    {
        ProgressStream::open(self.clone()).await
    }

    pub(crate) fn jobs(&self) -> &JobService {
        &self.jobs
    }

    /// Cancels the job; running ones too.
    ///
    /// # Errors
    /// As [`JobService::cancel`].
    pub async fn cancel(&self) -> Result<CancelOutcome> {
        self.jobs.cancel(&self.id, "cancelled by its producer").await
    }

    /// Waits until the job has ended, at most `timeout`, and gives how, whatever it was.
    ///
    /// # Errors
    /// As [`JobService::wait_for`].
    pub async fn outcome(&self, timeout: Duration) -> Result<JobResult> {
        match &self.origin {
            Origin::Enqueued { result_ttl, .. } if result_ttl.is_zero() => Err(no_result_kept(&self.id)),
            Origin::Enqueued { .. } => self.jobs.wait(&self.id, 0, timeout).await,
            Origin::Existing { .. } => self.jobs.wait_for(&self.id, timeout).await,
        }
    }
}

impl<R: DeserializeOwned> JobHandle<R> {
    /// Waits until the job has ended, at most [`DEFAULT_TIMEOUT`](Self::DEFAULT_TIMEOUT), and gives what it returned.
    ///
    /// # Errors
    /// If it did not complete, or what it returned is not an `R`; see [`ResultErrorKind`].
    ///
    /// # Cancel safety
    /// Cancel safe: the job goes on, and its result can be asked for again.
    pub async fn result(&self) -> Result<R, ResultError> {
        self.result_within(Self::DEFAULT_TIMEOUT).await
    }

    /// The same with a timeout of one's own.
    ///
    /// # Errors
    /// As [`result`](Self::result).
    pub async fn result_within(&self, timeout: Duration) -> Result<R, ResultError> {
        match self.outcome(timeout).await {
            Ok(ended) => ResultError::or_value(ended),
            Err(error) => Err(ResultError::service(self.id.clone(), error)),
        }
    }
}

impl<R> Clone for JobHandle<R> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), id: self.id.clone(), origin: self.origin.clone(), output: PhantomData }
    }
}

impl<R> fmt::Debug for JobHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobHandle").field("id", &self.id).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Why there is no value of a job.
#[derive(Debug)]
pub struct ResultError {
    id: JobId,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Job { status: JobStatus, error: Box<JobError> },
    Type(serde_json::Error),
    Service(JobServiceError),
}

/// The kinds of [`ResultError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResultErrorKind {
    /// The job failed for good; [`ResultError::job_error`] says why.
    Failed,
    /// The job was cancelled; [`ResultError::job_error`] says why.
    Cancelled,
    /// It completed, but with a value of another type.
    WrongType,
    /// The result could not be had.
    Service(JobServiceErrorKind),
}

impl ResultError {
    pub(crate) fn service(id: JobId, error: JobServiceError) -> Self {
        Self { id, cause: Cause::Service(error) }
    }

    /// What a job returned, or why there is nothing.
    pub(crate) fn or_value<R: DeserializeOwned>(ended: JobResult) -> Result<R, Self> {
        let failed = |cause| Self { id: ended.id.clone(), cause };
        match (ended.status, ended.error) {
            (JobStatus::Completed, _) => {
                let value = ended.result.unwrap_or_default();
                value.to().map_err(|source| failed(Cause::Type(source)))
            }
            (status, Some(error)) => Err(failed(Cause::Job { status, error: Box::new(error) })),
            (status, None) => Err(failed(Cause::Job {
                status,
                error: Box::new(JobError::new(naq_models::error_type::ERROR, "no reason was kept", ended.finished_at)),
            })),
        }
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ResultErrorKind {
        match &self.cause {
            Cause::Job { status: JobStatus::Cancelled, .. } => ResultErrorKind::Cancelled,
            Cause::Job { .. } => ResultErrorKind::Failed,
            Cause::Type(_) => ResultErrorKind::WrongType,
            Cause::Service(error) => ResultErrorKind::Service(error.kind()),
        }
    }

    /// The job.
    #[must_use]
    pub fn job_id(&self) -> &JobId {
        &self.id
    }

    /// Whether asking again may succeed without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(&self.cause, Cause::Service(error) if error.is_transient())
    }

    /// The job's own error, if it failed or was cancelled.
    #[must_use]
    pub fn job_error(&self) -> Option<&JobError> {
        match &self.cause {
            Cause::Job { error, .. } => Some(error),
            Cause::Type(_) | Cause::Service(_) => None,
        }
    }
}

impl fmt::Display for ResultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, cause } = self;
        match cause {
            Cause::Job { status, error } => {
                write!(f, "job {id} ended as {status}: {}: {}", error.error_type, error.message)
            }
            Cause::Type(_) => write!(f, "job {id} completed, but its result is not of the type asked for"),
            Cause::Service(_) => write!(f, "no result of job {id}"),
        }
    }
}

impl std::error::Error for ResultError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Job { .. } => None,
            Cause::Type(source) => Some(source),
            Cause::Service(source) => Some(source),
        }
    }
}
