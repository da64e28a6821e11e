//! Tests of what only this backend has: files, processes that share one, clocks, throughput. What every backend has to
//! do is the conformance suite's.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use naq_models::{Address, JobId, JobStatus, Priority, QueueName, Timestamp};
use rusqlite::Connection;

use super::{SqliteOptions, open};
use crate::storage::{
    Action, Bucket, Claim, Consumer, ConsumerEvent, ConsumerOptions, Demand, Enqueued, Entry, KvChange, Lane,
    QueueOptions, ResultRecord, RunningAt, RunningJobs, Settled, Settlement, SharedStorage, Sighting, StorageErrorKind,
};

mod throughput;

struct Nobody;

impl RunningJobs for Nobody {
    fn running(&self, _: &JobId) -> Option<RunningAt> {
        None
    }
}

fn queue() -> QueueName {
    QueueName::new("mail").unwrap()
}

fn entry_of(id: JobId, body: Bytes) -> Entry {
    Entry {
        address: Address { id, queue: queue(), priority: Priority::default(), stored_at: Timestamp::EPOCH },
        status: JobStatus::Pending,
        run_at: None,
        kind: "test".into(),
        run: 1,
        generation: 0,
        body,
    }
}

fn entry(id: &str) -> Entry {
    entry_of(JobId::new(id).unwrap(), Bytes::from_static(b"{}"))
}

async fn enqueue(store: &SharedStorage, entry: Entry) -> Enqueued {
    store.enqueue(vec![entry]).await.pop().unwrap().unwrap()
}

async fn consumer(store: &SharedStorage, lease: Duration) -> Box<dyn Consumer> {
    let queues = vec![QueueOptions { name: queue(), lease, max_ack_pending: None }];
    let options = ConsumerOptions { worker_id: "w1".into(), queues, running: Arc::new(Nobody) };
    store.open_consumer(options).await.unwrap()
}

fn demand(count: usize) -> Demand {
    Demand { lanes: vec![(Lane { queue: 0, priority: Priority::default() }, count)] }
}

/// The next claims, within a bound.
async fn claims(consumer: &mut Box<dyn Consumer>) -> Vec<Claim> {
    let claimed = async {
        loop {
            match consumer.next().await {
                ConsumerEvent::Claimed(claims) => return claims,
                ConsumerEvent::Empty(_) => {}
                ConsumerEvent::Trouble(error) => panic!("{error}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), claimed).await.expect("jobs arrive")
}

fn completion(claim: &Claim, body: Bytes) -> Settlement {
    let result = ResultRecord { status: JobStatus::Completed, body, generation: 0, ttl: Duration::from_secs(3600) };
    Settlement {
        lease: claim.lease.clone(),
        address: claim.address.clone(),
        action: Action::End { result: Some(result), dead_letter: None, unique_key: None },
        fenced: false,
        clear_scheduled: false,
    }
}

async fn refusal(path: &Path) -> (StorageErrorKind, String) {
    let error = open(SqliteOptions::file(path)).await.expect_err("the file is refused");
    assert!(error.to_string().contains(&path.display().to_string()), "{error} names the path");
    assert!(error.hint().is_some(), "{error} says what to do");
    (error.kind(), error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_file_is_made_by_whoever_comes_first() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.db");
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let options = SqliteOptions::file(&path);
            opening.spawn(async move { open(options).await.map(drop) });
        }
        while let Some(opened) = opening.join_next().await {
            opened.unwrap().expect("nobody takes a half-made file for another program's");
        }
    }
}

#[tokio::test]
async fn a_job_runs_once_across_two_handles_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let producer = open(SqliteOptions::file(&path)).await.unwrap();
    let worker = open(SqliteOptions::file(&path)).await.unwrap();
    let mut receiving = consumer(&worker, Duration::from_secs(30)).await;
    receiving.demand(demand(1));
    assert!(matches!(receiving.next().await, ConsumerEvent::Empty(_)));

    let mut waits = tokio::task::JoinSet::new();
    let waiting = Arc::clone(&producer);
    waits.spawn(async move {
        let id = JobId::new("a").unwrap();
        waiting.wait_result(&id, 0, Duration::from_secs(10)).await.unwrap().map(|found| (found, Instant::now()))
    });
    let started = Instant::now();
    assert_eq!(enqueue(&producer, entry("a")).await, Enqueued::Stored);
    let stored = started.elapsed();
    let claimed = claims(&mut receiving).await;
    let woken = started.elapsed() - stored;
    assert!(woken < Duration::from_millis(50), "woken after {woken:?}");
    assert!(!claimed[0].doubtful);
    let settled = worker.settle(vec![completion(&claimed[0], Bytes::from_static(b"done"))]).await;
    let ended = Instant::now();
    assert_eq!(settled.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Settled::Done]);
    let (found, at) = waits.join_next().await.unwrap().unwrap().expect("the result comes");
    assert_eq!(found.body, "done");
    let told = at.saturating_duration_since(ended);
    assert!(told < Duration::from_millis(50), "told after {told:?}");
    assert_eq!(enqueue(&producer, entry("a")).await, Enqueued::Duplicate);
    let again = worker.settle(vec![completion(&claimed[0], Bytes::from_static(b"again"))]).await;
    assert_eq!(again.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Settled::AlreadyEnded]);
    producer.close().await;
    worker.close().await;
    assert!(!path.with_extension("db-wal").exists(), "the last to close leaves one file");
}

#[tokio::test]
async fn jobs_that_are_settled_together_have_outcomes_of_their_own() {
    const JOBS: usize = 20;
    const GIVEN_BACK: usize = 9;
    let store = open(SqliteOptions::memory("settled together")).await.unwrap();
    let entries = (0..JOBS).map(|n| entry(&format!("job-{n}"))).collect();
    assert!(store.enqueue(entries).await.into_iter().all(|outcome| outcome.unwrap() == Enqueued::Stored));
    let mut receiving = consumer(&store, Duration::from_secs(30)).await;
    receiving.demand(demand(JOBS));
    let claimed = claims(&mut receiving).await;
    assert_eq!(claimed.len(), JOBS);
    receiving.demand(demand(0));
    store.hand_back(vec![claimed[GIVEN_BACK].lease.clone()]).await.unwrap();

    // Backwards: rows that follow each other are found whatever the order.
    let settlements =
        || claimed.iter().rev().map(|claim| completion(claim, Bytes::from_static(b"done"))).collect::<Vec<_>>();
    for won in [Settled::Done, Settled::AlreadyEnded] {
        for (n, outcome) in (0..JOBS).rev().zip(store.settle(settlements()).await) {
            assert_eq!(outcome.unwrap(), if n == GIVEN_BACK { Settled::LeaseLost } else { won }, "job {n}");
        }
    }
    for (n, claim) in claimed.iter().enumerate() {
        let found = store.get_job(&claim.lease.id).await.unwrap_or_default();
        let lives = matches!(found[..], [Sighting::Queued { .. }]);
        let result = store.get_result(&claim.lease.id).await.unwrap();
        assert_eq!((lives, result.is_some()), (n == GIVEN_BACK, n != GIVEN_BACK), "job {n}");
    }
}

#[tokio::test]
async fn the_log_is_moved_into_the_file_while_jobs_keep_coming() {
    const BODY: usize = 60 << 10;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let store = open(SqliteOptions::file(&path)).await.unwrap();
    for batch in 0..25 {
        let entries =
            (0..100).map(|n| entry_of(JobId::new(format!("job-{batch}-{n}")).unwrap(), Bytes::from(vec![b'x'; BODY])));
        assert!(store.enqueue(entries.collect()).await.into_iter().all(|outcome| outcome.unwrap() == Enqueued::Stored));
        let log = std::fs::metadata(path.with_extension("db-wal")).unwrap().len();
        assert!(log < 80 << 20, "{} MiB in the log after {batch} batches of 6 MB", log >> 20);
    }
    store.close().await;
    let there: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM jobs WHERE length(body) = ?1", [i64::try_from(BODY).unwrap()], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(there, 2500);
}

#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    let words = "not a database, but long enough to be read as the header of one ".repeat(64);
    std::fs::write(&text, &words).unwrap();
    assert_eq!(refusal(&text).await.0, StorageErrorKind::Incompatible);
    assert_eq!(std::fs::read_to_string(&text).unwrap(), words);

    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    assert_eq!(refusal(&foreign).await.0, StorageErrorKind::Incompatible);
    assert_eq!(std::fs::read(&foreign).unwrap(), before);

    let newer = dir.path().join("newer.db");
    open(SqliteOptions::file(&newer)).await.unwrap().close().await;
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let (kind, text) = refusal(&newer).await;
    assert_eq!(kind, StorageErrorKind::Incompatible);
    assert!(text.contains("99"), "{text}");

    assert_eq!(refusal(dir.path()).await.0, StorageErrorKind::Incompatible);
    assert_eq!(refusal(&dir.path().join("missing/jobs.db")).await.0, StorageErrorKind::Unreachable);
    let options = SqliteOptions { create_directories: true, ..SqliteOptions::file(dir.path().join("made/jobs.db")) };
    open(options).await.unwrap().close().await;
}

#[tokio::test]
async fn a_damaged_file_is_corrupt_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let store = open(SqliteOptions::file(&path)).await.unwrap();
    let many = (0..2000).map(|n| entry(&format!("job-{n}"))).collect();
    assert!(store.enqueue(many).await.into_iter().all(|outcome| outcome.unwrap() == Enqueued::Stored));
    store.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in &mut bytes[8192..] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    let error = match open(SqliteOptions::file(&path)).await {
        Err(error) => error,
        Ok(store) => store.get_job(&JobId::new("job-77").unwrap()).await.expect_err("the damage is seen"),
    };
    assert_eq!(error.kind(), StorageErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn stores_in_memory_are_shared_by_name_while_one_is_open() {
    let first = open(SqliteOptions::memory("shared")).await.unwrap();
    let second = open(SqliteOptions::memory("shared")).await.unwrap();
    let other = open(SqliteOptions::memory("other")).await.unwrap();
    enqueue(&first, entry("a")).await;
    first.close().await;
    let id = JobId::new("a").unwrap();
    assert_eq!(first.get_job(&id).await.unwrap_err().kind(), StorageErrorKind::Closed);
    assert!(matches!(second.get_job(&id).await.unwrap()[..], [Sighting::Queued { .. }]));
    assert_eq!(other.get_job(&id).await.unwrap_err().kind(), StorageErrorKind::NotFound);
    drop(second);
    let anew = open(SqliteOptions::memory("shared")).await.unwrap();
    assert_eq!(anew.get_job(&id).await.unwrap_err().kind(), StorageErrorKind::NotFound);
}

#[tokio::test]
async fn leases_and_locks_end_with_the_boot_and_not_with_the_wall_clock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let store = open(SqliteOptions::file(&path)).await.unwrap();
    enqueue(&store, entry("a")).await;
    let mut receiving = consumer(&store, Duration::from_secs(3600)).await;
    receiving.demand(demand(1));
    let lost = claims(&mut receiving).await.pop().unwrap();
    store.kv_create(Bucket::Locks, "leader", Bytes::new(), Some(Duration::from_secs(3600))).await.unwrap();
    assert!(!store.review(&lost).await.unwrap().suspect);

    // As after a power cut: what is stored is of another boot.
    let outside = Connection::open(&path).unwrap();
    outside.execute("UPDATE leases SET boot = boot + 1", []).unwrap();
    outside.execute("UPDATE kv SET boot = boot + 1", []).unwrap();
    assert_eq!(store.kv_get(Bucket::Locks, "leader").await.unwrap(), None);
    store.kv_create(Bucket::Locks, "leader", Bytes::new(), None).await.unwrap();
    receiving.demand(demand(1));
    let found = claims(&mut receiving).await.pop().unwrap();
    assert!(found.doubtful);
    assert!(store.review(&found).await.unwrap().suspect);
    let late = store.settle(vec![completion(&lost, Bytes::new())]).await.pop().unwrap();
    assert_eq!(late.unwrap(), Settled::LeaseLost);
}

#[tokio::test]
async fn a_commit_of_which_nobody_is_told_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let store = open(SqliteOptions::file(&path)).await.unwrap();
    let id = JobId::new("a").unwrap();
    let waiting = store.wait_result(&id, 0, Duration::from_secs(10));
    let dying = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        // As by a process that is killed between its commit and the word of it.
        let outside = Connection::open(&path).unwrap();
        outside
            .execute_batch(
                "BEGIN IMMEDIATE;
                 INSERT INTO queues (queue, name) VALUES (1, 'mail');
                 INSERT INTO results VALUES (1, 'a', 1, 5, 4000000000000, x'7b7d');
                 UPDATE meta SET revision = 1;
                 COMMIT",
            )
            .unwrap();
        Instant::now()
    };
    let (found, committed) = tokio::join!(waiting, dying);
    assert_eq!(found.unwrap().expect("the result comes").body, "{}");
    assert!(committed.elapsed() < Duration::from_secs(2), "found after {:?}", committed.elapsed());
}

#[tokio::test]
async fn a_watch_in_another_process_sees_changes_and_expiry() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.db");
    let here = open(SqliteOptions::file(&path)).await.unwrap();
    let there = open(SqliteOptions::file(&path)).await.unwrap();
    let mut watch = there.kv_watch(Bucket::Workers, "").await.unwrap();
    assert_eq!(watch.next().await, KvChange::Restart);
    assert_eq!(watch.next().await, KvChange::Current);
    here.kv_create(Bucket::Workers, "w1", Bytes::from_static(b"x"), Some(Duration::from_millis(200))).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap();
    assert!(matches!(next, KvChange::Put(found) if found.key == "w1" && found.value == "x"));
    let next = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap();
    assert_eq!(next, KvChange::Gone("w1".into()));
}
