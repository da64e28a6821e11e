//! A worker that is changed while it runs: never more jobs than allowed, none lost, and what is paused stays where it is.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use naq_models::{JobStatus, QueueName, error_type};
use naq_services::{JobContext, State, WorkerRegistry};
use naq_worker::{Adjuster, QueueSpec, WorkerBuilder, WorkerError, WorkerOptions};
use tokio::sync::Semaphore;

use crate::support::{Log, PATIENCE, Stage, Started, eventually, job, quick, start_built};

/// What a handler waits for.
type Gate = Arc<Semaphore>;

/// Notes how many run, itself included, and waits for a permit.
async fn held(running: State<AtomicUsize>, log: State<Log>, gate: State<Gate>) -> Result<(), String> {
    log.note((running.fetch_add(1, Ordering::SeqCst) + 1).to_string());
    gate.acquire().await.map_err(|e| e.to_string())?.forget();
    running.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

/// Options with which the worker says often how it is.
fn talkative() -> WorkerOptions {
    WorkerOptions { heartbeat_interval: Duration::from_millis(20), ..quick() }
}

fn adjustable(builder: WorkerBuilder) -> (Started, Adjuster) {
    let worker = builder.build().unwrap();
    let adjuster = worker.adjuster();
    (start_built(worker), adjuster)
}

/// Changes how many run at once, and waits until the worker says so of itself.
async fn resize(stage: &Stage, adjuster: &Adjuster, concurrency: usize) {
    adjuster.adjust(|worker| worker.concurrency = concurrency).unwrap();
    eventually(|| async {
        let workers = WorkerRegistry::new(stage.storage.clone()).list().await.unwrap();
        workers.first().is_some_and(|worker| worker.concurrency == concurrency)
    })
    .await;
}

fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

/// How many ran at each start.
fn running(log: &Log) -> Vec<usize> {
    log.all().iter().map(|note| note.parse().unwrap()).collect()
}

#[tokio::test]
async fn more_start_at_once_and_fewer_only_when_enough_have_ended() {
    let stage = Stage::new().await;
    let (log, gate) = (Log::default(), Gate::new(Semaphore::new(0)));
    let builder = stage.worker().concurrency(2).options(talkative()).handler("held", held);
    let (worker, adjuster) = adjustable(builder.state(log.clone()).state(AtomicUsize::new(0)).state(Arc::clone(&gate)));
    let running = || running(&log);
    for n in 0..30 {
        stage.enqueue(job("held").job_id(format!("j{n}"))).await;
    }
    log.until(2).await;
    resize(&stage, &adjuster, 6).await;
    log.until(6).await;
    assert_eq!(running(), [1, 2, 3, 4, 5, 6]);

    resize(&stage, &adjuster, 3).await;
    // Three come free and start nothing; the fourth makes room for one.
    gate.add_permits(4);
    log.until(7).await;
    assert_eq!(running()[6..], [3]);

    // Slots that were one too many take part again, beside new ones.
    resize(&stage, &adjuster, 9).await;
    log.until(13).await;
    assert_eq!(running()[7..], [4, 5, 6, 7, 8, 9]);
    gate.add_permits(30);
    log.until(30).await;
    assert!(running().iter().all(|running| *running <= 9), "{:?}", running());
    let report = worker.stop().await;
    assert_eq!((report.completed, report.lost, report.unsettled), (30, 0, 0));
}

/// Short jobs are claimed ahead by the hundred: only the slots can hold them back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_claimed_for_many_slots_waits_for_the_few_that_are_left() {
    let stage = Stage::new().await;
    let log = Log::default();
    let short = |running: State<AtomicUsize>, log: State<Log>| async move {
        log.note((running.fetch_add(1, Ordering::SeqCst) + 1).to_string());
        tokio::time::sleep(Duration::from_millis(1)).await;
        running.fetch_sub(1, Ordering::SeqCst);
    };
    let builder = stage.worker().concurrency(16).options(talkative()).handler("short", short);
    let (worker, adjuster) = adjustable(builder.state(log.clone()).state(AtomicUsize::new(0)));
    for stored in stage.jobs.enqueue_many((0..3000).map(|n| job("short").job_id(format!("j{n}"))).collect()).await {
        stored.unwrap();
    }
    log.until(500).await;
    resize(&stage, &adjuster, 2).await;
    // Those that had a slot already may still be about to say so.
    let first = log.all().len() + 16;
    log.until(first + 100).await;
    assert!(running(&log)[first..].iter().all(|running| *running <= 2), "{:?}", &running(&log)[first..]);
    resize(&stage, &adjuster, 16).await;
    log.until(3000).await;
    assert_eq!(running(&log).into_iter().max(), Some(16));
    let report = worker.stop().await;
    assert_eq!((report.completed, report.lost, report.unsettled), (3000, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_is_lost_or_run_twice_while_the_worker_grows_and_shrinks() {
    let stage = Stage::new().await;
    let log = Log::default();
    let note = |cx: JobContext, log: State<Log>| async move { log.note(cx.id().as_str()) };
    let builder = stage.worker().concurrency(1).options(quick()).state(log.clone()).handler("note", note);
    let (worker, adjuster) = adjustable(builder);
    for stored in stage.jobs.enqueue_many((0..6000).map(|n| job("note").job_id(format!("j{n}"))).collect()).await {
        stored.unwrap();
    }
    for (round, concurrency) in [8, 2, 16, 1, 5, 1, 32, 3].into_iter().cycle().take(40).enumerate() {
        adjuster.adjust(|worker| worker.concurrency = concurrency).unwrap();
        log.until(150 * (round + 1)).await;
    }
    let report = worker.stop().await;
    let ids: BTreeSet<String> = log.all().into_iter().collect();
    assert_eq!((ids.len(), log.all().len()), (6000, 6000));
    assert_eq!((report.completed, report.lost, report.unsettled), (6000, 0, 0));
}

#[tokio::test]
async fn a_paused_queue_keeps_its_jobs_until_it_is_resumed() {
    let stage = Stage::new().await;
    let queues = [QueueSpec { paused: true, ..QueueSpec::new(queue("a")) }, QueueSpec::new(queue("b"))];
    let (worker, adjuster) = adjustable(stage.worker().queues(queues).options(quick()).handler("fine", || async {}));
    let in_a = stage.enqueue(job("fine").queue("a")).await;
    // It would be first.
    let in_b = stage.enqueue(job("fine").queue("b")).await;
    assert_eq!(stage.result(&in_b).await.status, JobStatus::Completed);
    assert_eq!(stage.status(in_a.id()).await, JobStatus::Pending);

    adjuster.adjust(|worker| worker.paused = [queue("b"), queue("not-served")].into()).unwrap();
    assert_eq!(stage.result(&in_a).await.status, JobStatus::Completed);
    let in_b = stage.enqueue(job("fine").queue("b")).await;
    for _ in 0..5 {
        let in_a = stage.enqueue(job("fine").queue("a")).await;
        assert_eq!(stage.result(&in_a).await.status, JobStatus::Completed);
    }
    assert_eq!(stage.status(in_b.id()).await, JobStatus::Pending);
    let report = worker.stop().await;
    assert_eq!((report.completed, stage.status(in_b.id()).await), (7, JobStatus::Pending));
}

#[tokio::test]
async fn limits_hold_for_what_starts_and_stops_afterwards() {
    let stage = Stage::new().await;
    let (log, gate) = (Log::default(), Gate::new(Semaphore::new(0)));
    let options = WorkerOptions { shutdown_timeout: Duration::from_secs(3600), ..quick() };
    let builder = stage.worker().options(options).handler("held", held);
    let (worker, adjuster) = adjustable(builder.state(log.clone()).state(AtomicUsize::new(0)).state(Arc::clone(&gate)));
    let before = stage.enqueue(job("held")).await;
    log.until(1).await;
    adjuster.adjust(|worker| worker.max_job_duration = Some(Duration::from_millis(50))).unwrap();
    let after = stage.enqueue(job("held").max_retries(0)).await;
    assert_eq!(stage.result(&after).await.error.unwrap().error_type, error_type::TIMEOUT);
    assert_eq!(stage.status(before.id()).await, JobStatus::Running, "it was granted more");

    adjuster.adjust(|worker| worker.shutdown_timeout = Duration::from_millis(50)).unwrap();
    let report = worker.stop().await;
    assert_eq!((report.failed, report.handed_back), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_shrinks_to_its_stuck_slots_ends_with_an_error() {
    let stage = Stage::new().await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let stuck = move |_cx: JobContext| {
        // The sender is dropped at the end of the test.
        let _end = blocked.lock().unwrap().recv_timeout(PATIENCE);
    };
    let builder = stage.worker().concurrency(10).options(quick()).blocking_handler("stuck", stuck);
    let (worker, adjuster) = adjustable(builder.handler("fine", || async {}));
    let stuck = stage.enqueue(job("stuck").max_retries(0).timeout(Duration::from_millis(50))).await;
    assert_eq!(stage.result(&stuck).await.error.unwrap().error_type, error_type::TIMEOUT);
    let fine = stage.enqueue(job("fine")).await;
    assert_eq!(stage.result(&fine).await.status, JobStatus::Completed);
    adjuster.adjust(|worker| worker.concurrency = 2).unwrap();
    let error = worker.end().await.unwrap_err();
    assert!(matches!(error, WorkerError::Stuck { stuck: 1, concurrency: 2 }), "{error:?}");
    drop(release);
}
