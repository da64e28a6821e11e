//! Running what is enqueued: [`TestStore::drain`] and [`TestStore::drain_for`].
//!
//! Invariant: they end: when nothing is left to do at the store's time (and, for a span, at any time in it), or, with an
//! error, after [`DRAIN_LIMIT`]. Whatever queues jobs are in are served, also those that appear on the way. How the work
//! is done is in `rounds`; time moves only where the caller has asked for it.

use std::time::Duration;

use naq_models::{QueueName, Timestamp};
use naq_services::JobServiceError;
use naq_worker::{
    QueueSpec, SchedulerError, Worker, WorkerBuilder, WorkerOptions, WorkerReport,
    worker::{BuildError, WorkerError},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    TestStore,
    rounds::{Ask, Rounds},
};

/// How long [`TestStore::drain`] and [`TestStore::drain_for`] take at most, in real time.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Why a drain did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The worker cannot be built: two handlers of one kind, a shared value that is missing.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The worker failed.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// What is due could not be fired.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// The store cannot be read.
    #[error(transparent)]
    Jobs(#[from] JobServiceError),
    /// A span of time cannot be run on a store whose time passes by itself.
    #[error(
        "drain_for moves the store's clock, and this store has none that can be moved: open it with TestStore::memory"
    )]
    RealClock,
    /// Jobs kept coming, or a handler did not end.
    #[error(
        "the store was not drained within {DRAIN_LIMIT:?}: jobs that enqueue jobs, or a handler that does not end?"
    )]
    Limit,
}

impl TestStore {
    /// Fires what is due at the store's time and runs jobs, one at a time, until nothing is pending or due, and counts
    /// how they ended. `setup` gives the worker its handlers and shared values, and may raise its concurrency; it may be
    /// called several times, as jobs may come to queues that did not exist before. Queues are added by the drain, but for
    /// paused ones. Jobs that wait for their time, also for a retry, stay. Time does not move.
    ///
    /// # Errors
    /// See [`DrainError`]. A job that fails is no error: it is counted.
    pub async fn drain(&self, setup: impl FnMut(WorkerBuilder) -> WorkerBuilder) -> Result<WorkerReport, DrainError> {
        self.run_until(None, setup).await
    }

    /// Lives through the next `span` of the store's time, as [`drain`](Self::drain) does with one moment: the clock goes
    /// from due time to due time, and what is due runs at exactly its own time. Afterwards the clock stands at the end of
    /// the span; what is due at the end has run. Counts what ended in the whole span.
    ///
    /// Nothing sleeps: the real time it takes depends on how many moments of the span have something due.
    ///
    /// # Errors
    /// See [`DrainError`]; [`DrainError::RealClock`] if this store was not opened by the kit.
    pub async fn drain_for(
        &self,
        span: Duration,
        setup: impl FnMut(WorkerBuilder) -> WorkerBuilder,
    ) -> Result<WorkerReport, DrainError> {
        let clock = self.storage().virtual_clock().ok_or(DrainError::RealClock)?;
        let end = clock.now().saturating_add(span);
        self.run_until(Some(end), setup).await
    }

    /// The rounds run beside the caller's runtime, whose time may be paused; handlers run on it, and it builds the workers.
    async fn run_until(
        &self,
        end: Option<Timestamp>,
        mut setup: impl FnMut(WorkerBuilder) -> WorkerBuilder,
    ) -> Result<WorkerReport, DrainError> {
        let (asks, mut asked) = mpsc::channel(1);
        let (ended, outcome) = oneshot::channel();
        let rounds = Rounds::new(self.clone(), end, Handle::current(), asks);
        std::thread::Builder::new()
            .name("naq-testing".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let outcome = match runtime {
                    Ok(runtime) => runtime.block_on(rounds.run()),
                    Err(error) => Err(WorkerError::Thread(error).into()),
                };
                // Nobody waits if the future was dropped.
                ended.send(outcome).ok();
            })
            .map_err(WorkerError::Thread)?;
        // Ends with the rounds, which hold the other side.
        while let Some(Ask { queues, reply }) = asked.recv().await {
            // Nobody listens any more if the limit was reached meanwhile.
            reply.send(self.worker(queues, &mut setup)).ok();
        }
        outcome.await.unwrap_or(Err(WorkerError::Panicked.into()))
    }

    fn worker(
        &self,
        queues: Vec<QueueName>,
        setup: &mut impl FnMut(WorkerBuilder) -> WorkerBuilder,
    ) -> Result<Worker, BuildError> {
        let wire_format = self.jobs().settings().format;
        let options = WorkerOptions { scheduler: None, wire_format, ..WorkerOptions::default() };
        let blank = Worker::builder(self.storage().clone()).concurrency(1).options(options);
        setup(blank.state(self.jobs().clone())).queues(queues.into_iter().map(QueueSpec::from)).build()
    }
}
