//! [`Rounds`]: firing, running and moving the clock in turn, on a thread of its own.
//!
//! Invariant: the clock moves only when nothing is left to do at its time, and never past the end; a job runs at the time
//! at which it became due. What fires is the scheduler's own code, what runs is a worker, one for as many rounds as
//! possible. Waits in real time only for handlers, with [`DRAIN_LIMIT`] over all of it.

use std::{collections::BTreeSet, future::Future, pin::Pin, time::Duration};

use naq_models::{QueueName, Timestamp};
use naq_worker::{
    Scheduler, SchedulerOptions, Shutdown, Worker, WorkerReport,
    worker::{BuildError, WorkerError},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use crate::{DRAIN_LIMIT, DrainError, TestStore};

/// Between two looks whether the worker has done its work.
const LOOK: Duration = Duration::from_millis(1);
/// The shortest step of the clock.
const STEP: Duration = Duration::from_millis(1);

/// A worker is needed for these queues.
pub(crate) struct Ask {
    pub(crate) queues: Vec<QueueName>,
    pub(crate) reply: oneshot::Sender<Result<Worker, BuildError>>,
}

type Run = Pin<Box<dyn Future<Output = Result<WorkerReport, WorkerError>> + Send>>;

/// A worker that runs.
struct Working {
    run: Run,
    shutdown: Shutdown,
    queues: BTreeSet<QueueName>,
}

/// See the module.
pub(crate) struct Rounds {
    store: TestStore,
    scheduler: Scheduler,
    end: Option<Timestamp>,
    handlers: Handle,
    asks: mpsc::Sender<Ask>,
    working: Option<Working>,
    total: WorkerReport,
}

impl Rounds {
    /// Rounds at the present moment only, or up to `end`.
    pub(crate) fn new(store: TestStore, end: Option<Timestamp>, handlers: Handle, asks: mpsc::Sender<Ask>) -> Self {
        let format = store.jobs().settings().format;
        let scheduler = Scheduler::new(store.storage().clone(), "naq-testing", SchedulerOptions::default(), format);
        Self { store, scheduler, end, handlers, asks, working: None, total: WorkerReport::default() }
    }

    /// Runs until all is done, the limit is reached, or nobody waits for it any more.
    pub(crate) async fn run(mut self) -> Result<WorkerReport, DrainError> {
        let asks = self.asks.clone();
        // A worker whose future is dropped stops.
        tokio::select! {
            outcome = timeout(DRAIN_LIMIT, self.moments()) => outcome.unwrap_or(Err(DrainError::Limit)),
            () = asks.closed() => Ok(WorkerReport::default()),
        }
    }

    async fn moments(&mut self) -> Result<WorkerReport, DrainError> {
        self.moment().await?;
        if let (Some(end), Some(clock)) = (self.end, self.store.storage().virtual_clock()) {
            while let Some(next) = self.scheduler.next_due().await?.filter(|next| *next <= end) {
                // What is due already could not be moved, and is tried again a little later.
                let next = next.max(clock.now().saturating_add(STEP));
                if next > end {
                    break;
                }
                clock.advance_to(next);
                self.moment().await?;
            }
            // A handler may have moved it further.
            if clock.now() < end {
                clock.advance_to(end);
            }
        }
        self.stop().await?;
        Ok(self.total)
    }

    /// Does everything that is to be done at this time.
    async fn moment(&mut self) -> Result<(), DrainError> {
        loop {
            let fired = self.scheduler.fire_due().await?;
            let with_work = self.queues_with_work().await?;
            if with_work.is_empty() {
                if fired == 0 {
                    return Ok(());
                }
                continue;
            }
            self.serve(with_work).await?;
            self.idle().await?;
        }
    }

    /// Queues that are not paused and have jobs that can run, or do.
    async fn queues_with_work(&self) -> Result<BTreeSet<QueueName>, DrainError> {
        let reports = self.store.jobs().queues().await?.into_iter();
        let with_work = reports.filter(|report| !report.paused && (report.pending > 0 || report.running > 0));
        Ok(with_work.map(|report| report.queue).collect())
    }

    /// Sees to a worker that serves these queues, and those served before. The one there was has nothing to do.
    async fn serve(&mut self, mut queues: BTreeSet<QueueName>) -> Result<(), DrainError> {
        if let Some(working) = &mut self.working {
            if queues.is_subset(&working.queues) {
                return Ok(());
            }
            queues.append(&mut working.queues);
            self.stop().await?;
        }
        let (reply, answer) = oneshot::channel();
        let ask = Ask { queues: queues.iter().cloned().collect(), reply };
        // Without the caller, `run` ends.
        let Ok(()) = self.asks.send(ask).await else { return Ok(()) };
        let Ok(worker) = answer.await else { return Ok(()) };
        let shutdown = Shutdown::new();
        let run: Run = Box::pin(worker?.run_on(self.handlers.clone(), shutdown.clone()));
        self.working = Some(Working { run, shutdown, queues });
        Ok(())
    }

    /// Waits until the worker has nothing left to do.
    async fn idle(&mut self) -> Result<(), DrainError> {
        while let Some(working) = &mut self.working {
            tokio::select! {
                report = &mut working.run => {
                    self.working = None;
                    add(&mut self.total, report?);
                    return Ok(());
                }
                () = sleep(LOOK) => {}
            }
            let with_work = self.queues_with_work().await?;
            if self.working.as_ref().is_some_and(|working| with_work.is_disjoint(&working.queues)) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<(), DrainError> {
        if let Some(working) = self.working.take() {
            working.shutdown.request();
            add(&mut self.total, working.run.await?);
        }
        Ok(())
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
