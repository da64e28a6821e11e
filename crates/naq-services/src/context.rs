//! What a running handler can ask and do: [`JobContext`], [`State`], [`CancellationToken`].
//!
//! Invariant: lives here and not in naq-worker, so that a crate of job functions compiles without the worker. Cheap to
//! clone; holds no lease and cannot settle the job.

use std::{
    any::{Any, TypeId},
    borrow::Cow,
    collections::HashMap,
    fmt,
    ops::Deref,
    sync::Arc,
};

use naq_models::{Job, JobError, JobId, QueueName, RawJson};
use serde::de::DeserializeOwned;
pub use tokio_util::sync::CancellationToken;

use crate::{
    handle::ResultError,
    jobs::{JobServiceError, JobServiceErrorKind, not_found, read_result},
    progress::ProgressSlot,
    storage::SharedStorage,
};

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
    progress: ProgressSlot,
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
        let progress = ProgressSlot::default();
        Self { inner: Arc::new(Inner { job, worker_id, cancellation, storage, states, progress }) }
    }

    /// The same context, which leaves the job's progress there.
    #[must_use]
    pub fn with_progress(&self, progress: ProgressSlot) -> Self {
        Self { inner: Arc::new(Inner { progress, ..self.parts() }) }
    }

    fn parts(&self) -> Inner {
        let Inner { job, worker_id, cancellation, storage, states, progress } = &*self.inner;
        Inner {
            job: Arc::clone(job),
            worker_id: Arc::clone(worker_id),
            cancellation: cancellation.clone(),
            storage: Arc::clone(storage),
            states: Arc::clone(states),
            progress: progress.clone(),
        }
    }

    /// The same context with another token: for a handler that gives a part of its work less time than it has itself.
    #[must_use]
    pub fn with_cancellation(&self, cancellation: CancellationToken) -> Self {
        Self { inner: Arc::new(Inner { cancellation, ..self.parts() }) }
    }

    /// The whole envelope.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.inner.job
    }

    /// The handler's stable name.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.inner.job.kind
    }

    /// The job's arguments as a type; typed parameters of a handler are read for it and need no call of this.
    ///
    /// # Errors
    /// If the arguments do not fit the type.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.inner.job.args.to()
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

    /// What ties this job to what led to it: `meta.correlation_id`, or its own id. Every log line of the handler carries
    /// it, and jobs that are enqueued from this context inherit it.
    #[must_use]
    pub fn correlation_id(&self) -> Cow<'_, str> {
        self.inner.job.correlation_id()
    }

    /// Whether an error of this attempt ends the job, because no retry is left after it.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.inner.job.attempt > self.inner.job.retry.max_retries
    }

    /// What a job that this one depends on returned. One read of the store, each time.
    ///
    /// # Errors
    /// If this job does not depend on it, it did not complete (with `on_dependency_failure = run`), it returned something
    /// else than a `T`, its result is not kept any more, or the store fails; see [`ResultErrorKind`](crate::ResultErrorKind).
    pub async fn dependency<T: DeserializeOwned>(&self, id: impl AsRef<str> + Send) -> Result<T, ResultError> {
        let wanted = id.as_ref();
        let Some(id) = self.inner.job.depends_on.iter().find(|id| id.as_str() == wanted) else {
            let message = format!("job {} does not depend on {wanted:?}", self.id());
            let error = JobServiceError::new(JobServiceErrorKind::InvalidJob, message)
                .with_hint("name it in `depends_on` when enqueueing");
            return Err(ResultError::service(self.id().clone(), error));
        };
        let service = |error| ResultError::service(id.clone(), error);
        let found = self.inner.storage.get_result(id).await;
        let found = found.map_err(|source| {
            service(JobServiceError::storage(format!("cannot read the result of job {id}"), source))
        })?;
        let stored = found.ok_or_else(|| service(not_found(id)))?;
        ResultError::or_value(read_result(&stored).map_err(service)?)
    }

    /// The jobs that this one depends on.
    #[must_use]
    pub fn depends_on(&self) -> &[JobId] {
        &self.inner.job.depends_on
    }

    /// Says how far the job is: a fraction from 0 to 1, and what it does (`""` for nothing to say; cut to 1 KiB). Seen in
    /// `naq job status`, in the events, and by [`JobHandle::progress`](crate::JobHandle::progress).
    ///
    /// Costs about as much as a lock: the worker stores the newest report twice a second at most. Never waits, never fails.
    pub fn progress(&self, fraction: f64, message: impl Into<String>) {
        self.inner.progress.report(fraction, message.into());
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

    /// Whether the job should stop: for loops that do not wait.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancellation.is_cancelled()
    }

    /// Waits until the job should stop.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn cancelled(&self) {
        self.inner.cancellation.cancelled().await;
    }

    /// The store the job came from.
    #[must_use]
    pub fn storage(&self) -> &SharedStorage {
        &self.inner.storage
    }

    /// The shared values of the worker.
    #[must_use]
    pub fn states(&self) -> &States {
        &self.inner.states
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

    /// Adds the values of others, which replace those of the same types.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
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

/// A parameter that a handler is given from its surroundings and not from the job's arguments.
///
/// [`JobContext`], [`State`] and [`CancellationToken`] are such parameters. Hand-registered handlers take any type that
/// implements this; `#[naq::job]` knows those three by name.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be injected into a handler",
    label = "neither arguments nor something the worker can give",
    note = "a handler takes its arguments first (one type that implements `Deserialize`), then any of `JobContext`, \
            `State<T>`, `CancellationToken`, or a type that implements `naq::FromContext`"
)]
pub trait FromContext: Sized + Send + 'static {
    /// The parameter for one run; `None` if the worker cannot give it.
    fn from_context(cx: &JobContext) -> Option<Self>;

    /// What a worker with these shared values lacks to give the parameter: the name of a type. Asked once, when the
    /// worker starts.
    #[must_use]
    fn missing_from(states: &States) -> Option<&'static str> {
        let _ = states;
        None
    }
}

impl FromContext for JobContext {
    fn from_context(cx: &JobContext) -> Option<Self> {
        Some(cx.clone())
    }
}

impl FromContext for CancellationToken {
    fn from_context(cx: &JobContext) -> Option<Self> {
        Some(cx.cancellation().clone())
    }
}

impl<T: Send + Sync + 'static> FromContext for State<T> {
    fn from_context(cx: &JobContext) -> Option<Self> {
        cx.state()
    }

    fn missing_from(states: &States) -> Option<&'static str> {
        if states.get::<T>().is_some() { None } else { Some(std::any::type_name::<T>()) }
    }
}
