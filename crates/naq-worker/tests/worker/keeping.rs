//! Leases and settlements when the store, or the handler, makes it hard.

use std::time::{Duration, Instant};

use naq_models::{JobStatus, error_type};
use naq_services::{CancellationToken, JobContext, State, StorageErrorKind, storage::Sighting};
use naq_worker::{Worker, WorkerOptions};

use crate::{
    faulty::Faulty,
    support::{Log, Stage, eventually, job, quick, start},
};

fn short_lease() -> WorkerOptions {
    WorkerOptions { lease: Duration::from_secs(1), ..quick() }
}

/// One runtime thread, burnt for three leases: the heartbeat needs none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_handler_that_burns_its_thread_keeps_its_lease() {
    let stage = Stage::new().await;
    let log = Log::default();
    let burn = |log: State<Log>| async move {
        log.note("burns");
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    };
    let burner = start(stage.worker().concurrency(1).options(short_lease()).state(log.clone()).handler("burn", burn));
    let burnt = stage.enqueue(job("burn")).await;
    log.until(1).await;
    let thief = start(stage.worker().concurrency(1).options(short_lease()).state(log.clone()).handler("burn", burn));
    assert_eq!(stage.result(&burnt).await.status, JobStatus::Completed);
    thief.stop().await;
    assert_eq!(burner.stop().await.completed, 1);
    assert_eq!(log.all(), ["burns"]);
}

#[tokio::test]
async fn an_unconfirmed_lease_fires_the_token_and_writes_no_retry() {
    let stage = Stage::new().await;
    let store = Faulty::on(stage.storage.clone());
    let log = Log::default();
    let waits = |cx: JobContext, log: State<Log>, token: CancellationToken| async move {
        log.note(format!("start {}", cx.attempt()));
        token.cancelled().await;
        log.note("told");
        Err::<(), _>("told to stop".to_owned())
    };
    let cut_off =
        start(Worker::builder(store.clone()).options(short_lease()).state(log.clone()).handler("waits", waits));
    let job = stage.enqueue(job("waits")).await;
    log.until(1).await;
    store.mute_heartbeats();
    let muted = Instant::now();
    // Nobody tells it: it knows by its own clock that the lease may be gone.
    log.until(2).await;
    assert!(muted.elapsed() < Duration::from_millis(2500), "{:?}", muted.elapsed());
    let report = cut_off.stop().await;
    assert_eq!((report.retried, report.failed), (0, 0), "{report:?}");
    assert!(report.lost >= 1, "{report:?}");
    // Another worker gets the job, with the same attempt.
    let done = |cx: JobContext| async move { cx.attempt() };
    let other = start(stage.worker().options(quick()).handler("waits", done));
    assert_eq!(stage.result(&job).await.result.unwrap().get(), "1");
    other.stop().await;
}

#[tokio::test]
async fn a_settlement_that_fails_for_a_while_is_tried_again() {
    let stage = Stage::new().await;
    let store = Faulty::on(stage.storage.clone());
    store.fail_settlements([StorageErrorKind::Unreachable, StorageErrorKind::Timeout, StorageErrorKind::Full]);
    let worker = start(Worker::builder(store.clone()).options(quick()).handler("fine", || async {}));
    let fine = stage.enqueue(job("fine")).await;
    assert_eq!(stage.result(&fine).await.status, JobStatus::Completed);
    let report = worker.stop().await;
    assert_eq!((report.completed, store.faults_left()), (1, 0));
}

#[tokio::test]
async fn a_settlement_that_is_refused_becomes_a_dead_letter_and_never_a_loop() {
    let stage = Stage::new().await;
    let store = Faulty::on(stage.storage.clone());
    let worker = start(
        Worker::builder(store.clone())
            .concurrency(1)
            .options(short_lease())
            .handler("fine", || async {})
            .handler("again", || async { Err::<(), _>("once more".to_owned()) }),
    );
    for (kind, fault, expected) in [
        ("fine", StorageErrorKind::TooLarge, error_type::RESULT_TOO_LARGE),
        ("again", StorageErrorKind::Refused, error_type::ERROR),
    ] {
        store.fail_settlements([fault]);
        let refused = stage.enqueue(job(kind)).await;
        assert_eq!(stage.result(&refused).await.error.unwrap().error_type, expected);
        let seen = stage.storage.get_job(refused.id()).await.unwrap();
        assert!(seen.iter().any(|seen| matches!(seen, Sighting::Dead(_))), "{seen:?}");
    }
    // Refused as a dead letter too: it is left to its lease, and the worker goes on.
    store.fail_settlements([StorageErrorKind::Refused, StorageErrorKind::Refused]);
    let stubborn = stage.enqueue(job("fine")).await;
    eventually(|| async { store.faults_left() == 0 }).await;
    let next = stage.enqueue(job("fine")).await;
    assert_eq!(stage.result(&next).await.status, JobStatus::Completed);
    // Its lease runs out, and the store takes it then.
    assert_eq!(stage.result(&stubborn).await.status, JobStatus::Completed);
    let report = worker.stop().await;
    assert_eq!((report.failed, report.completed, report.unsettled), (2, 2, 1), "{report:?}");
}
