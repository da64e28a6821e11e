//! All or none on servers that can and cannot, and that are killed in the middle.

use std::time::Duration;

use naq_models::Job;
use naq_services::{
    RequestReply,
    connection::ConnectionService,
    storage::{EnqueuedAll, SharedStorage, StorageErrorKind},
};
use serde_json::{Value, json};

use crate::{server::on_each_server, work::*};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_an_older_naq_made_learns_to_take_batches() {
    on_each_server(async |server| {
        server.open().await.enqueue(vec![pending(&job(generated(1)))]).await.pop().unwrap().unwrap();
        let raw = ConnectionService::connect(server.options().connection).await.unwrap();
        let ask = async |verb: &str, body: Value| {
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let answer = raw.request(&format!("$JS.API.STREAM.{verb}.naq_queue_q"), body.into(), LONG).await.unwrap();
            serde_json::from_slice::<Value>(&answer).unwrap()
        };
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
        let mut stored = 0;
        for (jobs, outcome) in producer.await.unwrap() {
            let there = there(&storage, &jobs).await;
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
