//! Jobs, claims and settlements for tests.

use std::{collections::HashSet, sync::Arc, time::Duration};

use naq_models::{Job, JobError, JobId, JobResult, JobStatus, Priority, QueueName, RawJson, Timestamp, WireFormat};
use naq_services::storage::{
    Action, Claim, Consumer, ConsumerEvent, ConsumerOptions, DeadLetter, Demand, Entry, Lane, QueueOptions,
    ResultRecord, RunningAt, RunningJobs, Settlement, Storage,
};

pub(crate) const LEASE: Duration = Duration::from_secs(2);

pub(crate) fn id(text: &str) -> JobId {
    JobId::new(text).unwrap()
}

pub(crate) fn generated(n: u64) -> JobId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    JobId::generate(Timestamp::from_unix_millis(1_700_000_000_000).unwrap(), random)
}

pub(crate) fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub(crate) fn job(id: JobId) -> Job {
    let at = Timestamp::from_unix_millis(1_700_000_000_000).unwrap();
    let mut job = Job::new(id, "test", RawJson::parse("{}").unwrap(), at);
    job.queue = queue("q");
    job
}

pub(crate) fn pending(job: &Job) -> Entry {
    Entry::new(job, JobStatus::Pending, WireFormat::Json).unwrap()
}

pub(crate) fn retry(job: &Job, run_at: Timestamp) -> Entry {
    let mut job = job.clone();
    job.run += 1;
    job.run_at = Some(run_at);
    Entry::new(&job, JobStatus::Retry, WireFormat::Json).unwrap()
}

struct Nothing;

impl RunningJobs for Nothing {
    fn running(&self, _: &JobId) -> Option<RunningAt> {
        None
    }
}

pub(crate) async fn consumer(storage: &dyn Storage, name: &str) -> Box<dyn Consumer> {
    consumer_with(storage, name, LEASE, None).await
}

pub(crate) async fn consumer_with(
    storage: &dyn Storage,
    name: &str,
    lease: Duration,
    max_ack_pending: Option<u32>,
) -> Box<dyn Consumer> {
    let options = ConsumerOptions {
        worker_id: "test".into(),
        queues: vec![QueueOptions { name: queue(name), lease, max_ack_pending }],
        running: Arc::new(Nothing),
    };
    storage.open_consumer(options).await.unwrap()
}

pub(crate) fn demand(n: usize) -> Demand {
    Demand { lanes: Priority::ALL.map(|priority| (Lane { queue: 0, priority }, n)).into() }
}

/// Claims until there are `n`, or panics after ten seconds.
pub(crate) async fn claim(consumer: &mut dyn Consumer, n: usize) -> Vec<Claim> {
    let mut claims = Vec::new();
    let all = async {
        while claims.len() < n {
            consumer.demand(demand(n - claims.len()));
            loop {
                match consumer.next().await {
                    ConsumerEvent::Claimed(more) => {
                        claims.extend(more);
                        break;
                    }
                    ConsumerEvent::Empty(_) => {}
                    ConsumerEvent::Trouble(error) => println!("trouble: {error}"),
                }
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(10), all).await.is_err() {
        panic!("{} claims of {n} after ten seconds", claims.len());
    }
    consumer.demand(Demand::default());
    claims
}

/// Claims what is there, until the store says that this is all.
pub(crate) async fn claim_all(consumer: &mut dyn Consumer) -> Vec<Claim> {
    consumer.demand(Demand::default());
    consumer.demand(demand(10_000));
    let (mut claims, mut empty) = (Vec::new(), HashSet::new());
    let all = async {
        while empty.len() < Priority::ALL.len() {
            match consumer.next().await {
                ConsumerEvent::Claimed(more) => {
                    empty.retain(|lane| more.iter().all(|claim: &Claim| claim.lane != *lane));
                    claims.extend(more);
                }
                ConsumerEvent::Empty(lanes) => empty.extend(lanes),
                ConsumerEvent::Trouble(error) => println!("trouble: {error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("the store answers");
    consumer.demand(Demand::default());
    claims
}

pub(crate) fn result(job: &Job, status: JobStatus, value: &str) -> ResultRecord {
    let mut result = JobResult::of(job, status, job.enqueued_at);
    result.result = (status == JobStatus::Completed).then(|| RawJson::parse(value).unwrap());
    result.error = (status == JobStatus::Failed).then(error);
    ResultRecord { status, body: result.encode().into(), generation: job.generation, ttl: Duration::from_secs(60) }
}

pub(crate) fn error() -> JobError {
    JobError::new("broken", "two\nlines", Timestamp::EPOCH)
}

pub(crate) fn settlement(claim: &Claim, action: Action) -> Settlement {
    Settlement {
        lease: claim.lease.clone(),
        address: claim.address.clone(),
        action,
        fenced: false,
        clear_scheduled: claim.doubtful,
    }
}

pub(crate) fn completed(claim: &Claim) -> Settlement {
    let job = naq_models::wire::decode(&claim.body, &claim.address).unwrap();
    settlement(
        claim,
        Action::End { result: Some(result(&job, JobStatus::Completed, "1")), dead_letter: None, unique_key: None },
    )
}

pub(crate) fn failed(claim: &Claim) -> Settlement {
    let job = naq_models::wire::decode(&claim.body, &claim.address).unwrap();
    let dead_letter = DeadLetter {
        address: claim.address.clone(),
        body: claim.body.clone(),
        error: error(),
        kind: Some(job.kind.clone()),
    };
    let result = Some(result(&job, JobStatus::Failed, "null"));
    settlement(claim, Action::End { result, dead_letter: Some(dead_letter), unique_key: None })
}
