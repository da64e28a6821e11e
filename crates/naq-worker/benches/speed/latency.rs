//! From the call of `enqueue` to the start of the handler, on an idle store.
//!
//! Invariant: one job at a time, and a pause before each, so that nothing is still busy with the one before.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use naq_models::{QueueName, RawJson, Verdict};
use naq_services::{JobContext, JobService, NewJob, storage::SharedStorage};
use naq_worker::{ErasedHandler, HandlerRegistry, Shutdown, Worker, handler::HandlerFuture};
use tokio::sync::mpsc;

use crate::{
    other_process::{OtherProcess, STAMP, shared_nanos},
    report::Found,
    rounds::quantile,
};

/// Jobs that do not count: connections are made, statements prepared.
const WARM_UP: usize = 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends the time at which it began.
struct Stamp(mpsc::UnboundedSender<i64>);

impl ErasedHandler for Stamp {
    fn kind(&self) -> &str {
        STAMP
    }

    fn call(&self, _: JobContext) -> HandlerFuture {
        let now = shared_nanos();
        let verdict = match self.0.send(now) {
            Ok(()) => Verdict::Complete(RawJson::null()),
            Err(error) => Verdict::Cancel(error.to_string()),
        };
        Box::pin(std::future::ready(verdict))
    }
}

/// With the worker in this process, on `worker_side`, and the producer on `service`.
pub(crate) async fn in_process(
    service: &JobService,
    worker_side: SharedStorage,
    samples: usize,
    budget_ms: Option<f64>,
) -> Result<Found> {
    let (sender, mut begun) = mpsc::unbounded_channel();
    let mut handlers = HandlerRegistry::default();
    handlers.insert(Arc::new(Stamp(sender)))?;
    let worker = Worker::builder(worker_side).queue(QueueName::default()).handlers(handlers).build()?;
    let shutdown = Shutdown::new();
    let measured = async {
        let found = sample(service, samples, budget_ms, async |sent| {
            let begun = tokio::time::timeout(PATIENCE, begun.recv()).await.context("no job began in time")?;
            Ok(Duration::from_nanos((begun.context("the worker ended")? - sent).unsigned_abs()))
        })
        .await;
        shutdown.request();
        found
    };
    let (report, found) = tokio::join!(worker.run(shutdown.clone()), measured);
    report?;
    found
}

/// With the worker in another process.
pub(crate) async fn across_processes(
    service: &JobService,
    worker: &mut OtherProcess,
    samples: usize,
    budget_ms: Option<f64>,
) -> Result<Found> {
    sample(service, samples, budget_ms, async |_| worker.next_stamp().await).await
}

async fn sample(
    service: &JobService,
    samples: usize,
    p50_below_ms: Option<f64>,
    mut begun: impl AsyncFnMut(i64) -> Result<Duration>,
) -> Result<Found> {
    let mut millis = Vec::with_capacity(samples);
    for number in 0..WARM_UP + samples {
        // Of different lengths, so as not to fall in step with anything that looks at intervals.
        tokio::time::sleep(Duration::from_micros(rand::random_range(10_000..40_000))).await;
        let sent = shared_nanos();
        let job: NewJob = NewJob::new(STAMP, [sent]);
        service.enqueue(job).await?;
        let took = begun(sent).await?;
        if number >= WARM_UP {
            millis.push(took.as_secs_f64() * 1000.0);
        }
    }
    let (p50_ms, p99_ms) = (quantile(&millis, 0.5), quantile(&millis, 0.99));
    eprintln!("  p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms");
    Ok(Found::Latency { p50_ms, p99_ms, samples, p50_below_ms, note: None })
}
