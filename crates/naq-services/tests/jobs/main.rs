//! The job service over the memory store: what each operation does to jobs that a real store holds.
//!
//! Not here: the store itself (its conformance suite) and running handlers (naq-worker): a job is run here by claiming
//! and settling it by hand.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use naq_config::{NaqConfig, StoreUrl};
use naq_models::{Job, JobError, JobId, JobResult, JobStatus, Priority, QueueName, RawJson, wire};
use naq_services::{
    JobService, JobSettings, NewJob, open_storage,
    storage::{
        Action, Claim, ConsumerEvent, ConsumerOptions, DeadLetter, Demand, Lane, ResultRecord, RunningAt, RunningJobs,
        Settled, Settlement,
    },
};
use serde_json::json;

mod change;
mod dead;
mod enqueue;
mod lists;
mod purge;
mod results;

/// Longer than anything takes that does not hang.
const LONG: Duration = Duration::from_secs(20);

/// A service over a memory store of its own.
async fn service() -> JobService {
    service_with(JobSettings::default()).await
}

async fn service_with(settings: JobSettings) -> JobService {
    static STORES: AtomicU64 = AtomicU64::new(0);
    let url: StoreUrl = format!("memory://jobs-{}", STORES.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
    JobService::new(open_storage(&url, &NaqConfig::default()).await.unwrap(), settings)
}

fn id(text: &str) -> JobId {
    JobId::new(text).unwrap()
}

fn queue(text: &str) -> QueueName {
    QueueName::new(text).unwrap()
}

fn job(id: &str) -> NewJob {
    NewJob::new("k", json!({})).job_id(id)
}

struct Idle;

impl RunningJobs for Idle {
    fn running(&self, _: &JobId) -> Option<RunningAt> {
        None
    }
}

/// Claims what is pending in a queue, at most `max`, as a worker would.
async fn claim(jobs: &JobService, queue: &QueueName, max: usize) -> Vec<Claim> {
    let options = ConsumerOptions {
        worker_id: "w1".into(),
        queues: vec![jobs.settings().options_of(queue)],
        running: Arc::new(Idle),
    };
    let mut consumer = jobs.storage().open_consumer(options).await.unwrap();
    let lanes = Priority::ALL.map(|priority| (Lane { queue: 0, priority }, max)).to_vec();
    consumer.demand(Demand { lanes, total: max });
    let mut claims = Vec::new();
    while claims.len() < max {
        match tokio::time::timeout(LONG, consumer.next()).await.unwrap() {
            ConsumerEvent::Claimed(more) => claims.extend(more),
            ConsumerEvent::Answered => break,
            ConsumerEvent::Trouble(error) => panic!("{error}"),
        }
    }
    consumer.close().await.unwrap();
    claims
}

async fn claim_one(jobs: &JobService) -> Claim {
    claim(jobs, &QueueName::default(), 1).await.pop().expect("nothing to claim")
}

/// Ends a claimed job as a worker would.
async fn finish(jobs: &JobService, claim: Claim, ended: Result<RawJson, JobError>) -> Settled {
    let job: Job = wire::decode(&claim.body, &claim.address).unwrap();
    let status = if ended.is_ok() { JobStatus::Completed } else { JobStatus::Failed };
    let finished_at = jobs.storage().now().await.unwrap();
    let mut result = JobResult::of(&job, status, finished_at);
    (result.result, result.error) = (ended.clone().ok(), ended.clone().err());
    let record = (!job.result_ttl.is_zero()).then(|| ResultRecord {
        status,
        body: result.encode().into(),
        generation: job.generation,
        ttl: job.result_ttl,
    });
    let dead_letter = ended.err().map(|error| DeadLetter {
        address: claim.address.clone(),
        body: claim.body.clone(),
        error,
        kind: Some(job.kind.clone()),
    });
    let Claim { lease, address, .. } = claim;
    let action = Action::End { result: record, dead_letter };
    let settlement = Settlement { lease, address, action, fenced: false, clear_scheduled: true };
    jobs.storage().settle(vec![settlement]).await.pop().unwrap().unwrap()
}

fn value(text: &str) -> RawJson {
    RawJson::parse(text).unwrap()
}

fn failure() -> JobError {
    JobError::new("net", "down", naq_models::Timestamp::EPOCH)
}

/// Enqueues a job and lets it fail.
async fn failed(jobs: &JobService, name: &str) {
    jobs.enqueue(job(name)).await.unwrap();
    let claim = claim_one(jobs).await;
    assert_eq!(finish(jobs, claim, Err(failure())).await, Settled::Done);
}
