//! Jobs that a running job enqueues.
//!
//! Invariant: a child goes to the store its parent came from, and names its parent in its metadata. It has the parent's
//! correlation id, unless it was given one.

use naq_models::job::CORRELATION_ID;

use super::{JobService, JobSettings, Result};
use crate::{JobContext, JobHandle, NewJob};

/// The `meta` key of a child that holds its parent's id.
pub const PARENT_ID: &str = "parent_id";

impl JobContext {
    /// The jobs of the store that this job came from: the worker's own [`JobService`] if it shares one as a state, else
    /// one with default settings.
    #[must_use]
    pub fn jobs(&self) -> JobService {
        match self.state::<JobService>() {
            Some(shared) => JobService::clone(&shared),
            None => JobService::new(self.storage().clone(), JobSettings::default()),
        }
    }

    /// Enqueues a job from within this one; the child's `meta` gets this job's id as `parent_id`, and this job's
    /// `correlation_id` unless it has one. A retried parent enqueues again: give the child an id of its own if it must
    /// not run twice.
    ///
    /// # Errors
    /// As [`JobService::enqueue`].
    pub async fn enqueue<R>(&self, job: NewJob<R>) -> Result<JobHandle<R>> {
        let child = job.meta(PARENT_ID, self.id());
        let child =
            if child.has_meta(CORRELATION_ID) { child } else { child.meta(CORRELATION_ID, self.correlation_id()) };
        self.jobs().enqueue(child).await
    }
}
