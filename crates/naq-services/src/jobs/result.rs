//! Looking a job up and waiting for its end.
//!
//! Invariant: a result is given only if it is of the job's present life. A job that keeps no result is refused at once
//! instead of being waited for in vain, wherever that can be known.

use std::time::Duration;

use naq_models::{JobError, JobId, JobResult, JobStatus, RawJson};
use serde::Serialize;

use super::{JobService, JobServiceError, JobServiceErrorKind, JobStatusView, Result, sight::Trace};
use crate::{progress, storage::StoredResult};

/// What a look for a result found.
#[derive(Debug, Clone, PartialEq)]
pub enum ResultState {
    /// The job has ended.
    Ended(Box<JobResult>),
    /// It has not; this is where it stands.
    Unfinished(Box<JobStatusView>),
}

/// What `naq job result` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResultView {
    /// The job.
    pub job_id: JobId,
    /// How it ended, or where it stands.
    pub status: JobStatus,
    /// What it returned, if it completed.
    pub result: Option<RawJson>,
    /// Why it failed or was cancelled.
    pub error: Option<JobError>,
}

impl From<&JobResult> for ResultView {
    fn from(result: &JobResult) -> Self {
        Self {
            job_id: result.id.clone(),
            status: result.status,
            result: result.result.clone(),
            error: result.error.clone(),
        }
    }
}

impl From<&JobStatusView> for ResultView {
    fn from(view: &JobStatusView) -> Self {
        Self { job_id: view.job_id.clone(), status: view.status, result: None, error: view.error.clone() }
    }
}

/// What those who wait for the end of a job need to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has ended so.
    Ended(JobStatus),
    /// It has not. A result that is newer than `generation` is its end.
    Unfinished {
        /// The revision of the result that its life began from; 0 if there was none.
        generation: u64,
        /// Whether its end leaves a result.
        keeps_result: bool,
    },
    /// There is no such job, or nothing is kept of it.
    Unknown,
}

impl JobService {
    /// How a job stands for those who wait for its end.
    ///
    /// # Errors
    /// If the store fails, or what it holds of the job cannot be read.
    pub async fn standing(&self, id: &JobId) -> Result<Standing> {
        let trace = match self.find(id).await {
            Ok(trace) => trace,
            Err(error) if error.kind() == JobServiceErrorKind::NotFound => return Ok(Standing::Unknown),
            Err(error) => return Err(error),
        };
        let status = trace.status();
        Ok(if status.is_terminal() {
            Standing::Ended(status)
        } else {
            let generation = trace.job().map_or(0, |job| job.generation);
            Standing::Unfinished { generation, keeps_result: !keeps_no_result(&trace) }
        })
    }

    /// Where a job stands.
    ///
    /// # Errors
    /// [`JobServiceErrorKind::NotFound`] if the store knows nothing of it: it was never enqueued, or its result is not
    /// kept any more.
    pub async fn status(&self, id: &JobId) -> Result<JobStatusView> {
        let mut view = self.find(id).await?.view();
        if !view.status.is_terminal() {
            let progress = progress::read(&**self.storage(), id).await;
            view.progress = progress
                .map_err(|source| JobServiceError::storage(format!("cannot read the progress of job {id}"), source))?;
        }
        Ok(view)
    }

    /// How a job ended, or where it stands if it has not.
    ///
    /// # Errors
    /// As [`status`](Self::status), and [`JobServiceErrorKind::NoResultKept`] if its `result_ttl` is zero.
    pub async fn result(&self, id: &JobId) -> Result<ResultState> {
        match self.find(id).await? {
            Trace::Ended { result, .. } => Ok(ResultState::Ended(result)),
            trace if keeps_no_result(&trace) => Err(no_result_kept(id)),
            trace @ Trace::Dead { .. } => Ok(ResultState::Ended(Box::new(of_dead_letter(&trace.view())))),
            trace => Ok(ResultState::Unfinished(Box::new(trace.view()))),
        }
    }

    /// Waits until a job has ended; pushed by the store where it can push.
    ///
    /// # Errors
    /// As [`result`](Self::result), and [`JobServiceErrorKind::TimedOut`].
    pub async fn wait_for(&self, id: &JobId, timeout: Duration) -> Result<JobResult> {
        let trace = self.find(id).await?;
        let generation = trace.job().map_or(0, |job| job.generation);
        match trace {
            Trace::Ended { result, .. } => Ok(*result),
            trace if keeps_no_result(&trace) => Err(no_result_kept(id)),
            trace @ Trace::Dead { .. } => Ok(of_dead_letter(&trace.view())),
            Trace::Queued { .. } | Trace::Scheduled { .. } => self.wait(id, generation, timeout).await,
        }
    }

    /// Waits for a result with a revision over `newer_than` (0 for any), without asking first whether there is such a
    /// job: for one that was just enqueued.
    ///
    /// # Errors
    /// [`JobServiceErrorKind::TimedOut`], or the store fails.
    pub async fn wait(&self, id: &JobId, newer_than: u64, timeout: Duration) -> Result<JobResult> {
        match self.storage().wait_result(id, newer_than, timeout).await {
            Ok(Some(stored)) => read_result(&stored),
            Ok(None) => {
                let limit = naq_models::duration::format(timeout);
                let message = format!("job {id} did not end within {limit}; it goes on");
                Err(JobServiceError::new(JobServiceErrorKind::TimedOut, message)
                    .with_hint("wait longer, or look later with `naq job result`; is a worker running for its queue?"))
            }
            Err(source) => Err(JobServiceError::storage(format!("cannot wait for job {id}"), source)),
        }
    }

    /// The trace that says where a job stands.
    pub(super) async fn find(&self, id: &JobId) -> Result<Trace> {
        Trace::newest(self.traces(id).await?).ok_or_else(|| not_found(id))
    }

    pub(super) async fn traces(&self, id: &JobId) -> Result<Vec<Trace>> {
        match self.storage().get_job(id).await {
            Ok(sightings) => sightings.into_iter().map(Trace::read).collect(),
            Err(source) if source.kind() == crate::StorageErrorKind::NotFound => Err(not_found(id).with_source(source)),
            Err(source) => Err(JobServiceError::storage(format!("cannot look up job {id}"), source)),
        }
    }
}

pub(crate) fn not_found(id: &JobId) -> JobServiceError {
    JobServiceError::new(JobServiceErrorKind::NotFound, format!("there is no job {id}"))
        .with_hint("results are kept for the job's result_ttl only; is this the right store?")
}

pub(crate) fn read_result(stored: &StoredResult) -> Result<JobResult> {
    JobResult::decode(&stored.body).map_err(|source| {
        let message = format!("the stored result of job {} cannot be read", stored.id);
        JobServiceError::new(JobServiceErrorKind::Undecodable, message).with_source(source)
    })
}

fn keeps_no_result(trace: &Trace) -> bool {
    trace.job().is_some_and(|job| job.result_ttl.is_zero())
}

pub(crate) fn no_result_kept(id: &JobId) -> JobServiceError {
    JobServiceError::new(JobServiceErrorKind::NoResultKept, format!("job {id} keeps no result (no_result_kept)"))
        .with_hint("its result_ttl is 0; enqueue it with a result_ttl to wait for it")
}

/// The dead letter outlives the result and tells the same but for who ran it.
fn of_dead_letter(view: &JobStatusView) -> JobResult {
    JobResult {
        id: view.job_id.clone(),
        status: view.status,
        result: None,
        error: view.error.clone(),
        job: None,
        kind: view.kind.clone(),
        queue: view.queue.clone(),
        attempt: view.attempt,
        worker_id: None,
        run_at: view.run_at,
        enqueued_at: view.enqueued_at,
        started_at: None,
        finished_at: view.finished_at.unwrap_or(view.enqueued_at),
    }
}
