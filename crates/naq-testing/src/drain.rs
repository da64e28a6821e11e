//! Running what is enqueued: [`TestStore::drain`].
//!
//! Invariant: it ends: when nothing is pending or due in any queue that is not paused, or, with an error, after
//! [`DRAIN_LIMIT`]. Whatever queues jobs are in are served, also those that appear on the way.

use std::{collections::BTreeSet, time::Duration};

use naq_models::QueueName;
use naq_services::JobServiceError;
use naq_worker::{
    QueueSpec, Shutdown, Worker, WorkerBuilder, WorkerOptions, WorkerReport,
    worker::{BuildError, WorkerError},
};

use crate::TestStore;

/// How long [`TestStore::drain`] takes at most.
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
    /// The store cannot be read.
    #[error(transparent)]
    Jobs(#[from] JobServiceError),
    /// Jobs kept coming, or a handler did not end.
    #[error(
        "the store was not drained within {DRAIN_LIMIT:?}: jobs that enqueue jobs, or a handler that does not end?"
    )]
    Limit,
}

impl TestStore {
    /// Runs jobs, one at a time, until nothing is pending or due, and counts how they ended. `setup` gives the worker
    /// its handlers and shared values, and may raise its concurrency; it is called once per round, as jobs may come to
    /// queues that did not exist before. Queues are added by the drain. Jobs that wait for their time, also for a
    /// retry, stay.
    ///
    /// # Errors
    /// See [`DrainError`]. A job that fails is no error: it is counted.
    pub async fn drain(&self, setup: impl FnMut(WorkerBuilder) -> WorkerBuilder) -> Result<WorkerReport, DrainError> {
        // A worker whose future is dropped stops.
        tokio::time::timeout(DRAIN_LIMIT, self.rounds(setup)).await.unwrap_or(Err(DrainError::Limit))
    }

    async fn rounds(&self, mut setup: impl FnMut(WorkerBuilder) -> WorkerBuilder) -> Result<WorkerReport, DrainError> {
        let (mut total, mut served) = (WorkerReport::default(), BTreeSet::new());
        loop {
            let queues = self.queues_with_work(&served).await?;
            if queues.is_empty() {
                return Ok(total);
            }
            let options =
                WorkerOptions { burst: true, wire_format: self.jobs().settings().format, ..WorkerOptions::default() };
            let blank = Worker::builder(self.storage().clone()).concurrency(1).options(options);
            let worker = setup(blank.state(self.jobs().clone())).queues(queues.iter().cloned().map(QueueSpec::from));
            add(&mut total, worker.build()?.run(Shutdown::new()).await?);
            served.extend(queues);
        }
    }

    /// Queues with something to run; of those not served yet also such with something that may be due.
    async fn queues_with_work(&self, served: &BTreeSet<QueueName>) -> Result<Vec<QueueName>, JobServiceError> {
        let reports = self.jobs().queues().await?;
        let with_work = reports.into_iter().filter(|report| {
            let may_be_due = report.scheduled + report.retry > 0 && !served.contains(&report.queue);
            !report.paused && (report.pending > 0 || may_be_due)
        });
        Ok(with_work.map(|report| report.queue).collect())
    }
}

fn add(total: &mut WorkerReport, more: WorkerReport) {
    let WorkerReport {
        completed,
        failed,
        cancelled,
        retried,
        snoozed,
        already_ended,
        handed_back,
        lost,
        unsettled,
        stuck,
    } = more;
    total.completed += completed;
    total.failed += failed;
    total.cancelled += cancelled;
    total.retried += retried;
    total.snoozed += snoozed;
    total.already_ended += already_ended;
    total.handed_back += handed_back;
    total.lost += lost;
    total.unsettled += unsettled;
    total.stuck += stuck;
}
