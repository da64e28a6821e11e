//! Workers of this process: their handlers, what these count, and how the worker is ended.
//!
//! Invariant: a worker is never dropped while it runs: it is asked to stop and has ended when [`Bench::beside`] returns, so that
//! nothing of it uses the ground that is removed next.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use naq_models::{QueueName, RawJson, Verdict};
use naq_services::JobContext;
use naq_worker::{ErasedHandler, QueueSpec, Shutdown, Worker, WorkerReport, handler::HandlerFuture};
use tokio::sync::Notify;

use super::{
    Bench, Result,
    ground::{Ground, Place},
    load::KIND,
};
use crate::error::{CliError, with_sources};

/// Slots where nothing is said. Handlers do nothing, so it only has to be enough to hide the way to them.
pub(super) const SLOTS: usize = 100;

/// A handler of [`KIND`].
pub(super) struct Called<F>(pub(super) F);

impl<F: Fn(JobContext) -> HandlerFuture + Send + Sync + 'static> ErasedHandler for Called<F> {
    fn kind(&self) -> &str {
        KIND
    }

    fn call(&self, cx: JobContext) -> HandlerFuture {
        self.0(cx)
    }
}

/// A handler that does no more than to look at its job.
pub(super) fn looking(look: impl Fn(&JobContext) + Send + Sync + 'static) -> Arc<dyn ErasedHandler> {
    Arc::new(Called(move |cx: JobContext| {
        look(&cx);
        completed()
    }))
}

pub(super) fn completed() -> HandlerFuture {
    Box::pin(std::future::ready(Verdict::Complete(RawJson::null())))
}

/// Counts the starts of handlers, and notes when the first and the last of those that count began.
#[derive(Debug)]
pub(super) struct Tally {
    /// Starts that come before the first that counts.
    warm_up: usize,
    /// All that are waited for.
    all: usize,
    started: AtomicUsize,
    first: OnceLock<Instant>,
    last: OnceLock<Instant>,
    done: Notify,
}

impl Tally {
    pub(super) fn of(all: usize) -> Arc<Self> {
        Self::after(0, all)
    }

    pub(super) fn after(warm_up: usize, all: usize) -> Arc<Self> {
        let (started, first, last) = (AtomicUsize::new(0), OnceLock::new(), OnceLock::new());
        Arc::new(Self { warm_up, all, started, first, last, done: Notify::new() })
    }

    /// A handler has begun.
    pub(super) fn count(&self) {
        let before = self.started.fetch_add(1, Ordering::Relaxed);
        if before == self.warm_up {
            self.first.get_or_init(Instant::now);
        }
        if before + 1 == self.all {
            self.last.get_or_init(Instant::now);
            self.done.notify_one();
        }
    }

    /// Returns when all have begun; for one who waits.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn counted(&self) {
        self.done.notified().await;
    }

    /// Since the first start that counts.
    pub(super) fn elapsed(&self) -> Duration {
        self.first.get().map(Instant::elapsed).unwrap_or_default()
    }

    /// Starts a second between the first that counts and the last.
    pub(super) fn rate(&self) -> f64 {
        let took = self.first.get().zip(self.last.get()).map(|(first, last)| *last - *first);
        per_second(self.all - self.warm_up, took.unwrap_or_default())
    }
}

/// How many a second. A clock that has not moved makes it very many, and not infinitely many, which JSON cannot say.
pub(super) fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.max(Duration::from_micros(1)).as_secs_f64()
}

impl Ground {
    /// A worker over some queues, as the user's configuration says, with one handler.
    pub(super) async fn worker(
        &self,
        slots: usize,
        queues: &[QueueName],
        handler: Arc<dyn ErasedHandler>,
    ) -> Result<Worker> {
        let builder = Worker::of(&self.services).await?;
        let queues = queues.iter().cloned().map(QueueSpec::new);
        let worker = builder.queues(queues).concurrency(slots).erased_handler(handler).build();
        worker.map_err(|e| CliError::failed(with_sources(&e)))
    }
}

impl Bench<'_> {
    /// Runs a worker beside some work, which is the last that is done on the ground, and ends it when that is done, has failed,
    /// or is to be stopped. What the work found, and what the worker did, if it could say.
    pub(super) async fn beside<T>(
        &self,
        ground: &Ground,
        worker: Worker,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Option<WorkerReport>)> {
        let (shutdown, over) = (Shutdown::new(), Shutdown::new());
        let running = async {
            let report = worker.run(shutdown.clone()).await;
            over.request();
            report.map_err(|e| CliError::failed(with_sources(&e)))
        };
        let watched = async {
            let outcome = tokio::select! {
                outcome = self.unless_stopped(work) => Some(outcome),
                () = over.requested() => None,
            };
            shutdown.request_now();
            if matches!(self.place, Place::Account) {
                // Under the worker, which would else wait until its open pulls expire: two seconds a round.
                ground.services.close().await;
            }
            outcome
        };
        match tokio::join!(running, watched) {
            (Err(error), None) => Err(error),
            (Ok(_), None) => Err(CliError::failed("the worker ended by itself")),
            // That it lost its store then is no failure.
            (report, Some(outcome)) => Ok((outcome?, report.ok())),
        }
    }

    /// Runs what waits in the ground's queue until it is empty; jobs a second from the first start of a handler on.
    pub(super) async fn drain(&self, ground: &Ground, slots: usize, jobs: usize) -> Result<f64> {
        let tally = Tally::of(jobs);
        let handler = Arc::clone(&tally);
        let worker = ground.worker(slots, &[super::ground::queue()], looking(move |_| handler.count())).await?;
        let emptied = async {
            tally.counted().await;
            ground.emptied().await?;
            Ok(per_second(jobs, tally.elapsed()))
        };
        let (rate, report) = self.beside(ground, worker, emptied).await?;
        expect_completed(report.as_ref(), jobs)?;
        Ok(rate)
    }

    /// Stores so many jobs, made by number, in bulk.
    pub(super) async fn fill(
        &self,
        ground: &Ground,
        jobs: usize,
        make: impl Fn(usize) -> naq_services::NewJob,
    ) -> Result<()> {
        self.unless_stopped(async {
            for begin in (0..jobs).step_by(CHUNK) {
                ground.enqueue((begin..jobs.min(begin + CHUNK)).map(&make).collect()).await?;
            }
            Ok(())
        })
        .await
    }
}

/// Jobs that are given to one call of `enqueue_many`, which bounds the memory that a million take.
pub(super) const CHUNK: usize = 20_000;

/// A measurement counts for nothing if jobs were lost or ran twice.
pub(super) fn expect_completed(report: Option<&WorkerReport>, jobs: usize) -> Result<()> {
    match report {
        Some(report) if report.completed != jobs as u64 => {
            Err(CliError::failed(format!("{jobs} jobs were to be completed once each, and {} were", report.completed)))
        }
        _ => Ok(()),
    }
}
