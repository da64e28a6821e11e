//! Enqueueing all or none.
//!
//! Invariant: every job of a call is stored, or none is, and the error names the job that was in the way. What one store can
//! do all or none and another cannot is refused by that store, never done piece by piece.

use std::collections::HashSet;

use tracing::Instrument as _;

use super::{JobService, JobServiceError, JobServiceErrorKind, Receipt, Result};
use crate::{new_job::NewJob, trace_context::Sending};

/// The most jobs that one call of [`JobService::enqueue_all`] takes, on every store: what one batch of NATS holds.
pub const MAX_TOGETHER: usize = 1000;

impl JobService {
    /// Stores all of these jobs durably, or none: one receipt per job, in order, none of them a duplicate. At most
    /// [`MAX_TOGETHER`] jobs. On NATS all go to one queue, none has a delay or waits for others, and the server is 2.12 or
    /// later; SQLite and memory take any.
    ///
    /// # Errors
    /// Nothing is stored after
    /// - [`InvalidJob`](JobServiceErrorKind::InvalidJob), [`TooLarge`](JobServiceErrorKind::TooLarge): one of them cannot be
    ///   stored;
    /// - [`Conflict`](JobServiceErrorKind::Conflict): an id is queued, scheduled or running, has a kept result, or is given
    ///   twice;
    /// - [`KeyTaken`](JobServiceErrorKind::KeyTaken): another job has a unique key, whatever `on_conflict` says but
    ///   `Replace` of one that is not running; or two of these have the same key;
    /// - [`Unsupported`](JobServiceErrorKind::Unsupported): the store cannot do it for these jobs.
    ///
    /// After `Storage(Timeout)` or `Storage(Unreachable)` it is not known whether all are stored or none. With ids of one's
    /// own the call can be repeated: it stores them all, or says that they are there.
    ///
    /// # Cancel safety
    /// A dropped call has stored all or none, and the caller does not learn which.
    pub async fn enqueue_all<R>(&self, jobs: Vec<NewJob<R>>) -> Result<Vec<Receipt>> {
        if jobs.len() > MAX_TOGETHER {
            let message = format!("cannot enqueue {} jobs all or none; at most {MAX_TOGETHER}", jobs.len());
            return Err(JobServiceError::new(JobServiceErrorKind::Unsupported, message)
                .with_hint("enqueue them in several calls, or with enqueue_many, which stores each for itself"));
        }
        let host_now = self.host_time();
        let clock = self.clock(jobs.iter().any(NewJob::has_time), host_now).await;
        let mut sending = Sending::of(jobs.len());
        let planned = jobs.into_iter().map(|job| self.plan(self.build(job, host_now, &clock)?, &clock, &mut sending));
        let planned = planned.collect::<Result<Vec<_>>>()?;
        let mut ids = HashSet::with_capacity(planned.len());
        if let Some(twice) = planned.iter().find(|planned| !ids.insert(&planned.entry.address.id)) {
            let message = format!("the id {} is given twice; no job was enqueued", twice.entry.address.id);
            return Err(JobServiceError::new(JobServiceErrorKind::Conflict, message));
        }
        self.store_together(planned).instrument(sending.span()).await
    }
}
