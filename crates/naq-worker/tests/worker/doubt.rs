//! Jobs that were delivered before: settled ones, suspects, lost leases.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use naq_models::{JobResult, JobStatus, Priority, QueueName, error_type};
use naq_services::{
    CancellationToken, JobContext, State,
    storage::{Bucket, Claim, ConsumerEvent, ConsumerOptions, Demand, Lane, QueueOptions, RunningAt, RunningJobs},
};
use naq_worker::WorkerOptions;

use crate::support::{Log, PATIENCE, Stage, eventually, job, quick, start};

struct Nothing;

impl RunningJobs for Nothing {
    fn running(&self, _: &naq_models::JobId) -> Option<RunningAt> {
        None
    }
}

/// Claims what is there as a worker that then dies: its leases run out after a second.
async fn claim_and_die(stage: &Stage) -> Vec<Claim> {
    let options = ConsumerOptions {
        worker_id: "doomed".into(),
        queues: vec![QueueOptions { name: QueueName::default(), lease: Duration::from_secs(1), max_ack_pending: None }],
        running: Arc::new(Nothing),
    };
    let mut consumer = stage.storage.open_consumer(options).await.unwrap();
    let lane = Lane { queue: 0, priority: Priority::default() };
    consumer.demand(Demand { lanes: vec![(lane, 100)] });
    match tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap() {
        ConsumerEvent::Claimed(claims) => claims,
        other => panic!("{other:?}"),
    }
}

async fn counted(stage: &Stage, id: &str) -> Option<String> {
    let entry = stage.storage.kv_get(Bucket::Control, &format!("suspect.{id}")).await.unwrap();
    entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

async fn seen_address(stage: &Stage, id: &naq_models::JobId) -> naq_models::Address {
    use naq_services::storage::Sighting;
    let seen = stage.storage.get_job(id).await.unwrap();
    let address = seen.into_iter().find_map(|seen| match seen {
        Sighting::Queued { address, .. } => Some(address),
        _ => None,
    });
    address.expect("the job is in its queue")
}

#[tokio::test]
async fn a_suspect_is_counted_while_it_runs_and_cleared_when_it_ends() {
    let stage = Stage::new().await;
    let log = Log::default();
    let suspect = stage.enqueue(job("waits").job_id("s")).await;
    assert_eq!(claim_and_die(&stage).await.len(), 1);
    let waits = |cx: JobContext, log: State<Log>| async move {
        log.note("start");
        let key = format!("suspect.{}", cx.id());
        let entry = cx.storage().kv_get(Bucket::Control, &key).await.map_err(|e| e.to_string())?;
        Ok::<_, String>(entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned()))
    };
    let worker = start(stage.worker().options(quick()).state(log.clone()).handler("waits", waits));
    assert_eq!(stage.result(&suspect).await.result.unwrap().get(), r#""{\"count\":1}""#);
    eventually(|| async { counted(&stage, "s").await.is_none() }).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_took_too_many_workers_with_it_is_not_started_again() {
    let stage = Stage::new().await;
    let log = Log::default();
    let poison = stage.enqueue(job("note").job_id("poison")).await;
    claim_and_die(&stage).await;
    stage
        .storage
        .kv_create(Bucket::Control, "suspect.poison", Bytes::from_static(b"{\"count\":3}"), None)
        .await
        .unwrap();
    let note = |log: State<Log>| async move { log.note("ran") };
    let worker = start(stage.worker().options(quick()).state(log.clone()).handler("note", note));
    let error = stage.result(&poison).await.error.unwrap();
    assert_eq!((error.error_type.as_str(), error.is_retryable), (error_type::WORKER_LOST, false));
    eventually(|| async { counted(&stage, "poison").await.is_none() }).await;
    worker.stop().await;
    assert!(log.all().is_empty());
    assert_eq!(stage.status(poison.id()).await, JobStatus::Failed);
}

#[tokio::test]
async fn suspects_with_a_count_run_one_at_a_time_beside_other_jobs() {
    let stage = Stage::new().await;
    let log = Log::default();
    for n in 0..4 {
        stage.enqueue(job("note").job_id(format!("s{n}"))).await;
        let key = format!("suspect.s{n}");
        stage.storage.kv_create(Bucket::Control, &key, Bytes::from_static(b"{\"count\":1}"), None).await.unwrap();
    }
    assert_eq!(claim_and_die(&stage).await.len(), 4);
    let note = |cx: JobContext, log: State<Log>| async move {
        let suspect = cx.id().as_str().starts_with('s');
        log.note(if suspect { "in" } else { "fine" });
        tokio::time::sleep(Duration::from_millis(50)).await;
        if suspect {
            log.note("out");
        }
    };
    let worker = start(stage.worker().concurrency(8).options(quick()).state(log.clone()).handler("note", note));
    log.until(1).await;
    stage.result(&stage.enqueue(job("note").job_id("fine")).await).await;
    log.until(9).await;
    worker.stop().await;
    let turns: Vec<String> = log.all().into_iter().filter(|note| note != "fine").collect();
    assert_eq!(turns, ["in", "out", "in", "out", "in", "out", "in", "out"]);
}

#[tokio::test]
async fn a_redelivered_job_that_has_ended_is_completed_and_not_run() {
    let stage = Stage::new().await;
    let log = Log::default();
    let ended = stage.enqueue(job("note").job_id("ended")).await;
    let claims = claim_and_die(&stage).await;
    // Its worker wrote the result and died before the rest: a fenced settlement writes just that on this store too.
    let envelope = naq_models::wire::decode(&claims[0].body, &claims[0].address).unwrap();
    let now = stage.storage.now().await.unwrap();
    let result = JobResult::of(&envelope, JobStatus::Completed, now);
    let ending = naq_services::storage::Ending {
        address: claims[0].address.clone(),
        result: Some(naq_services::storage::ResultRecord {
            status: JobStatus::Completed,
            body: result.encode().into(),
            generation: 0,
            ttl: Duration::from_secs(60),
        }),
        dead_letter: None,
        unique_key: None,
    };
    stage.storage.end(ending).await.unwrap();
    let note = |log: State<Log>| async move { log.note("ran") };
    let worker = start(
        stage.worker().options(WorkerOptions { burst: true, ..quick() }).state(log.clone()).handler("note", note),
    );
    worker.end().await.unwrap();
    assert!(log.all().is_empty());
    assert_eq!(stage.status(ended.id()).await, JobStatus::Completed);
}

#[tokio::test]
async fn a_worker_that_loses_its_lease_stops_the_job_and_uncounts_it() {
    let stage = Stage::new().await;
    let log = Log::default();
    let lost = stage.enqueue(job("waits").job_id("lost").max_retries(0)).await;
    claim_and_die(&stage).await;
    let waits = |log: State<Log>, token: CancellationToken| async move {
        log.note("start");
        token.cancelled().await;
        log.note("told");
        Err::<(), _>("stopped".to_owned())
    };
    let worker = start(stage.worker().options(quick()).state(log.clone()).handler("waits", waits));
    log.until(1).await;
    assert_eq!(counted(&stage, "lost").await.as_deref(), Some(r#"{"count":1}"#));
    // Somebody else ends it; the next heartbeat finds the lease gone.
    let address = seen_address(&stage, lost.id()).await;
    let ending = naq_services::storage::Ending { address, result: None, dead_letter: None, unique_key: None };
    stage.storage.end(ending).await.unwrap();
    log.until(2).await;
    eventually(|| async { counted(&stage, "lost").await.is_none() }).await;
    let report = worker.stop().await;
    assert_eq!((report.lost, report.failed, report.retried), (1, 0, 0), "{report:?}");
}
