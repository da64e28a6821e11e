//! Jobs that a running job enqueues.
//!
//! Invariant: a child goes to the store its parent came from, and names its parent in its metadata.

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

    /// Enqueues a job from within this one; the child's `meta` gets this job's id as `parent_id`. A retried parent
    /// enqueues again: give the child an id of its own if it must not run twice.
    ///
    /// # Errors
    /// As [`JobService::enqueue`].
    pub async fn enqueue<R>(&self, job: NewJob<R>) -> Result<JobHandle<R>> {
        self.jobs().enqueue(job.meta(PARENT_ID, self.id())).await
    }
}
