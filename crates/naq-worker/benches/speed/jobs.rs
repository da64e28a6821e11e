//! The jobs that are measured: 256 bytes of arguments, for a handler that does nothing.
//!
//! Invariant: the bare side gets the very bytes that naq stores, made beforehand; naq's side makes them while the clock
//! runs, as a producer would.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use naq_models::{Job, JobId, JobResult, JobStatus, QueueName, RawJson, Timestamp, WireFormat, wire};
use naq_services::{JobService, NewJob, new_job::secs};
use serde_json::json;

use crate::rounds::{Start, Took};

pub(crate) const KIND: &str = "bench.noop";
/// Bytes of a job's arguments.
const PAYLOAD: usize = 256;
/// A week, in seconds.
pub(crate) const RESULT_TTL: u64 = 7 * 24 * 3600;

/// Whether a run keeps a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Result,
    Nothing,
}

/// Arguments of exactly [`PAYLOAD`] bytes.
pub(crate) fn args() -> RawJson {
    let empty = json!({ "data": "" }).to_string().len();
    RawJson::from_value(&json!({ "data": "x".repeat(PAYLOAD - empty) })).expect("an object is JSON")
}

pub(crate) fn new_jobs(queue: &str, count: usize, keep: Keep) -> Vec<NewJob> {
    let ttl = if keep == Keep::Result { RESULT_TTL } else { 0 };
    let args = args();
    (0..count).map(|_| NewJob::new(KIND, &args).queue(queue).result_ttl(secs(ttl))).collect()
}

/// Stores jobs through the public API and sees that each was taken.
pub(crate) async fn enqueue(service: &JobService, jobs: Vec<NewJob>) -> Result<()> {
    for receipt in service.enqueue_many(jobs).await {
        let receipt = receipt.context("a job was not enqueued")?;
        ensure!(!receipt.duplicate, "a generated id was taken");
    }
    Ok(())
}

/// Naq's side of bulk enqueue: the jobs of one round, and what it took to store them.
pub(crate) async fn enqueue_round(service: &JobService, queue: &str, count: usize) -> Result<Took> {
    let wanted = new_jobs(queue, count, Keep::Result);
    let begin = Start::now();
    enqueue(service, wanted).await?;
    Ok(begin.took())
}

/// A finished job as it lies in a store.
pub(crate) struct Encoded {
    pub(crate) id: String,
    pub(crate) body: Bytes,
}

/// What [`new_jobs`] become, encoded.
pub(crate) fn encoded(queue: &str, count: usize, keep: Keep, now: Timestamp) -> Result<Vec<Encoded>> {
    let queue = QueueName::new(queue)?;
    let args = args();
    (0..count)
        .map(|_| {
            let id = JobId::generate(now, rand::random());
            let mut job = Job::new(id, KIND, args.clone(), now);
            job.queue = queue.clone();
            if keep == Keep::Nothing {
                job.result_ttl = std::time::Duration::ZERO;
            }
            let body = wire::encode(&job, WireFormat::Json)?.into();
            Ok(Encoded { id: job.id.as_str().to_owned(), body })
        })
        .collect()
}

/// The result of such a job, as a worker writes it.
pub(crate) fn result(queue: &str, now: Timestamp) -> Result<Bytes> {
    let mut job = Job::new(JobId::generate(now, rand::random()), KIND, args(), now);
    job.queue = QueueName::new(queue)?;
    let mut result = JobResult::of(&job, JobStatus::Completed, now);
    result.result = Some(RawJson::null());
    result.worker_id = Some("bench-12345678".into());
    result.started_at = Some(now);
    Ok(result.encode().into())
}
