//! What a running handler can ask and do: [`JobContext`], [`State`], [`CancellationToken`].
//!
//! Invariant: lives here and not in naq-worker, so that a crate of job functions compiles without the worker. Cheap to
//! clone; holds no lease and cannot settle the job.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    ops::Deref,
    sync::Arc,
};

use naq_models::{Job, JobError, JobId, QueueName, RawJson};
pub use tokio_util::sync::CancellationToken;

use crate::storage::SharedStorage;

/// The job a handler runs for, and its surroundings.
#[derive(Clone)]
pub struct JobContext {
    inner: Arc<Inner>,
}

struct Inner {
    job: Arc<Job>,
    worker_id: Arc<str>,
    cancellation: CancellationToken,
    storage: SharedStorage,
    states: Arc<States>,
}

impl JobContext {
    /// For a worker that is about to call a handler.
    #[must_use]
    pub fn new(
        job: Arc<Job>,
        worker_id: Arc<str>,
        cancellation: CancellationToken,
        storage: SharedStorage,
        states: Arc<States>,
    ) -> Self {
        Self { inner: Arc::new(Inner { job, worker_id, cancellation, storage, states }) }
    }

    /// The whole envelope.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.inner.job
    }

    /// The job's id.
    #[must_use]
    pub fn id(&self) -> &JobId {
        &self.inner.job.id
    }

    /// 1 on the first run; grows with every retry, not with a crash, snooze or hand-back.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.job.attempt
    }

    /// The queue it came from.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.inner.job.queue
    }

    /// One entry of the job's `meta`.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<&RawJson> {
        self.inner.job.meta.get(key)
    }

    /// The error of the attempt before this one.
    #[must_use]
    pub fn last_error(&self) -> Option<&JobError> {
        self.inner.job.last_error.as_ref()
    }

    /// The worker that runs it.
    #[must_use]
    pub fn worker_id(&self) -> &str {
        &self.inner.worker_id
    }

    /// Fires when the job should stop: cancelled, timed out, lease lost, or the worker is asked to stop at once.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.inner.cancellation
    }

    /// The store the job came from.
    #[must_use]
    pub fn storage(&self) -> &SharedStorage {
        &self.inner.storage
    }

    /// The shared value of a type, if the worker was given one.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<State<T>> {
        self.inner.states.get()
    }
}

impl fmt::Debug for JobContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobContext").field("id", self.id()).field("attempt", &self.attempt()).finish_non_exhaustive()
    }
}

/// A value that all handlers of a worker share, found by its type.
#[derive(Debug)]
pub struct State<T: ?Sized>(pub Arc<T>);

impl<T: ?Sized> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> Deref for State<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// The shared values of a worker, one of each type.
#[derive(Default)]
pub struct States(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    /// Adds or replaces the value of a type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// The value of a type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<State<T>> {
        let value = Arc::clone(self.0.get(&TypeId::of::<T>())?);
        value.downcast().ok().map(State)
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "States({} types)", self.0.len())
    }
}
