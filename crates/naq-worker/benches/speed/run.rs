//! Running what waits in a queue with a real worker.
//!
//! Invariant: the clock runs from the first start of a handler until the store holds no job, so that starting the worker
//! is not counted and nothing that is still to be written is left out.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use naq_models::{QueueName, RawJson, Verdict};
use naq_services::{EventHook, JobContext, storage::SharedStorage};
use naq_worker::{ErasedHandler, HandlerRegistry, Shutdown, Worker, handler::HandlerFuture};
use tokio::sync::Notify;

use crate::{
    jobs::KIND,
    rounds::{Start, Took},
};

/// Jobs that run at once. Handlers do nothing, so it only has to be enough to hide the way to them.
pub(crate) const CONCURRENCY: usize = 100;
/// A round takes seconds at most.
const PATIENCE: Duration = Duration::from_secs(120);

/// Does nothing, and counts how often.
struct Noop {
    first: OnceLock<Start>,
    left: AtomicUsize,
    all_started: Notify,
}

/// The counter as a handler.
struct Counted(Arc<Noop>);

impl ErasedHandler for Counted {
    fn kind(&self) -> &str {
        KIND
    }

    fn call(&self, _: JobContext) -> HandlerFuture {
        let noop = &self.0;
        noop.first.get_or_init(Start::now);
        if noop.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            noop.all_started.notify_one();
        }
        Box::pin(std::future::ready(Verdict::Complete(RawJson::null())))
    }
}

/// Runs `count` jobs that wait in a queue; `emptied` returns when the store holds none of them.
pub(crate) async fn drain(
    storage: &SharedStorage,
    queue: &str,
    count: usize,
    events: EventHook,
    emptied: impl Future<Output = Result<()>>,
) -> Result<Took> {
    let noop = Arc::new(Noop { first: OnceLock::new(), left: AtomicUsize::new(count), all_started: Notify::new() });
    let mut handlers = HandlerRegistry::default();
    handlers.insert(Arc::new(Counted(Arc::clone(&noop))))?;
    let worker = Worker::builder(Arc::clone(storage))
        .queue(QueueName::new(queue)?)
        .concurrency(CONCURRENCY)
        .handlers(handlers)
        .events(events)
        .build()?;
    let shutdown = Shutdown::new();
    let watched = async {
        let took = tokio::time::timeout(PATIENCE, async {
            noop.all_started.notified().await;
            emptied.await?;
            noop.first.get().map(|first| first.took()).context("no job was started")
        })
        .await;
        shutdown.request();
        took.with_context(|| format!("{} jobs were not started in time", noop.left.load(Ordering::Relaxed)))?
    };
    let (report, took) = tokio::join!(worker.run(shutdown.clone()), watched);
    let (report, took) = (report?, took?);
    ensure!(report.completed == count as u64, "{count} jobs were to be completed once: {report:?}");
    Ok(took)
}
