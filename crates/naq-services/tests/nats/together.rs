//! All or none on servers that can and cannot, and that are killed in the middle.

use std::{collections::HashSet, process::Command, time::Duration};

use naq_models::{Job, JobId, JobStatus, QueueName};
use naq_services::{
    JobService, JobServiceErrorKind, JobSettings, NewJob, RequestReply,
    connection::ConnectionService,
    storage::{
        EnqueuedAll, ListFilter, SharedStorage, StorageErrorKind, crash,
        nats::{self, NatsOptions},
    },
};
use serde_json::{Value, json};

use crate::{
    server::{Server, on_each_server},
    work::*,
};

const LONG: Duration = Duration::from_secs(5);

fn batch(first: u64, count: u64) -> Vec<Job> {
    (first..first + count).map(|n| job(generated(n))).collect()
}

async fn store(storage: &SharedStorage, jobs: &[Job]) -> Result<EnqueuedAll, StorageErrorKind> {
    storage.enqueue_all(jobs.iter().map(pending).collect()).await.map_err(|error| error.kind())
}

/// How many of these are in their queue.
async fn there(storage: &SharedStorage, jobs: &[Job]) -> usize {
    let mut found = 0;
    for job in jobs {
        found += usize::from(storage.get_job(&job.id).await.is_ok());
    }
    found
}

/// The ids of all jobs in queues.
async fn queued(storage: &SharedStorage) -> HashSet<JobId> {
    let mut filter = ListFilter { queue: None, statuses: vec![JobStatus::Pending], limit: 1000, cursor: None };
    let mut ids = HashSet::new();
    loop {
        let page = storage.list(&filter).await.unwrap();
        ids.extend(page.items.iter().map(|sighting| sighting.id().clone()));
        if page.next.is_none() {
            return ids;
        }
        filter.cursor = page.next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_server_is_sent_no_batch() {
    on_each_server(async |server| {
        let storage = server.open().await;
        let jobs = batch(0, 3);
        if server.is_old() {
            assert_eq!(store(&storage, &jobs).await, Err(StorageErrorKind::Unsupported));
            assert_eq!(there(&storage, &jobs).await, 0);
        } else {
            assert_eq!(store(&storage, &jobs).await, Ok(EnqueuedAll::Stored));
            assert_eq!(store(&storage, &jobs[2..]).await, Ok(EnqueuedAll::Taken(0)), "a batch of one");
            assert_eq!(store(&storage, &batch(9, 1)).await, Ok(EnqueuedAll::Stored), "a batch of one");
        }
    })
    .await;
}

async fn stream_api(raw: &ConnectionService, verb: &str, stream: &str, body: Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = raw.request(&format!("$JS.API.STREAM.{verb}.{stream}"), body.into(), LONG).await.unwrap();
    serde_json::from_slice(&answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_an_older_naq_made_learns_to_keep_what_is_replaced() {
    on_each_server(async |server| {
        drop(server.open().await);
        let raw = ConnectionService::connect(server.options().connection).await.unwrap();
        let ask = |verb, body| stream_api(&raw, verb, "KV_naq_scheduled_jobs", body);
        let kept = async || ask("INFO", Value::Null).await["config"]["max_msgs_per_subject"].clone();
        let mut config = ask("INFO", Value::Null).await["config"].clone();
        assert_eq!(config["max_msgs_per_subject"], 8);
        config["max_msgs_per_subject"] = json!(1);
        ask("UPDATE", config.clone()).await;
        assert_eq!(kept().await, 1);
        drop(server.open().await);
        assert_eq!(kept().await, 8);

        config["max_age"] = json!(3_600_000_000_000_u64);
        assert_eq!(ask("UPDATE", config).await["error"], Value::Null);
        let refused = nats::open(server.options()).await.err().map(|error| error.kind());
        assert_eq!((refused, kept().await), (Some(StorageErrorKind::Incompatible), json!(1)), "another program's");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_an_older_naq_made_learns_to_take_batches() {
    on_each_server(async |server| {
        server.open().await.enqueue(vec![pending(&job(generated(1)))]).await.pop().unwrap().unwrap();
        let raw = ConnectionService::connect(server.options().connection).await.unwrap();
        let ask = |verb, body| stream_api(&raw, verb, "naq_queue_q", body);
        let mut config = ask("INFO", Value::Null).await["config"].clone();
        if server.is_old() {
            assert_eq!(config["allow_atomic"], Value::Null);
            return;
        }
        config["allow_atomic"] = json!(false);
        assert_ne!(ask("UPDATE", config).await["config"]["allow_atomic"], true);
        let jobs = batch(10, 3);
        assert_eq!(store(&server.open().await, &jobs).await, Ok(EnqueuedAll::Stored));
        assert_eq!(ask("INFO", Value::Null).await["config"]["allow_atomic"], true);
        assert_eq!(ask("INFO", Value::Null).await["state"]["messages"], 4);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_all_there_or_not_at_all_through_kills_of_the_server() {
    on_each_server(async |mut server| {
        if server.is_old() {
            return;
        }
        let storage = server.open().await;
        let (begun, mut progress) = tokio::sync::watch::channel(0);
        let producer = tokio::spawn({
            let storage = storage.clone();
            async move {
                let mut outcomes = Vec::new();
                for n in 0..30 {
                    let mut jobs = batch(n * 300, 300);
                    jobs.push(job(id(&format!("chosen-{n}"))));
                    begun.send_replace(n);
                    let outcome = store(&storage, &jobs).await;
                    outcomes.push((jobs, outcome));
                }
                outcomes
            }
        });
        for round in [3, 12, 20] {
            progress.wait_for(|n| *n >= round).await.unwrap();
            tokio::time::sleep(Duration::from_millis(round)).await;
            server.kill();
            server.restart();
        }
        let outcomes = producer.await.unwrap();
        let queued = queued(&storage).await;
        let mut stored = 0;
        for (jobs, outcome) in outcomes {
            let there = jobs.iter().filter(|job| queued.contains(&job.id)).count();
            match outcome {
                Ok(outcome) => {
                    assert_eq!((outcome, there), (EnqueuedAll::Stored, jobs.len()));
                    stored += 1;
                }
                Err(kind) => {
                    assert!(matches!(kind, StorageErrorKind::Timeout | StorageErrorKind::Unreachable), "{kind:?}");
                    assert!(there == 0 || there == jobs.len(), "{there} of {}", jobs.len());
                }
            }
        }
        assert!(stored >= 27, "only {stored} of 30 were stored");
    })
    .await;
}

/// How this very test is started again, as the producer that dies: the server, and where.
const DYING: [&str; 2] = ["NAQ_TEST_DYING_SERVER", "NAQ_TEST_DYING_AT"];

fn submissions() -> Vec<NewJob> {
    let keyed = NewJob::new("k", json!({})).job_id("keyed").unique("key");
    vec![NewJob::new("k", json!({})).job_id("first"), keyed, NewJob::new("k", json!({})).job_id("last")]
}

async fn service(server: &str) -> JobService {
    let mut options = NatsOptions::default();
    options.connection.servers = vec![server.to_owned()];
    JobService::new(nats::open(options).await.unwrap(), JobSettings::default())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_producer_that_dies_leaves_is_all_or_nothing() {
    if let [Ok(server), Ok(point)] = DYING.map(std::env::var) {
        crash::arm(point, 1);
        service(&server).await.enqueue_all(submissions()).await.unwrap();
        return;
    }
    on_each_server(async |server| {
        if server.is_old() {
            return;
        }
        for (point, stored) in [
            ("jobs.unique.key", false),
            ("nats.enqueue_all.reserved", false),
            ("nats.enqueue_all.opened", false),
            ("nats.enqueue_all.sent", false),
            ("nats.enqueue_all.committed", true),
        ] {
            let server = Server::start(server.binary());
            let died = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "together::what_a_producer_that_dies_leaves_is_all_or_nothing"])
                .envs(DYING.into_iter().zip([server.url().as_str(), point]))
                .output()
                .unwrap();
            assert_eq!(died.status.code(), None, "{point}: {}", String::from_utf8_lossy(&died.stdout));
            let jobs = service(&server.url()).await;
            let there = jobs.queue(&QueueName::default()).await.unwrap().pending;
            assert_eq!(there, if stored { 3 } else { 0 }, "{point}");
            // What it held stands in nobody's way who does the same again.
            let again = jobs.enqueue_all(submissions()).await.map(|receipts| receipts.len());
            let expected = if stored { Err(JobServiceErrorKind::Conflict) } else { Ok(3) };
            assert_eq!(again.map_err(|error| error.kind()), expected, "{point}");
            assert_eq!(jobs.queue(&QueueName::default()).await.unwrap().pending, 3, "{point}");
        }
    })
    .await;
}
