//! A worker that is asked to stop: what runs may end, what does not goes back, and no attempt is lost.

use std::time::Duration;

use naq_models::JobStatus;
use naq_services::{CancellationToken, JobContext, State};
use naq_services::{WorkerRegistry, workers::WorkerStatus};
use naq_worker::WorkerOptions;
use tokio::sync::Semaphore;

use crate::support::{Log, Stage, eventually, job, quick, start};

/// Notes its start and waits for a permit, whatever its token says.
async fn gated(cx: JobContext, log: State<Log>, gate: State<Semaphore>) -> Result<u32, String> {
    log.note(format!("start {} {}", cx.id(), cx.attempt()));
    gate.acquire().await.map_err(|e| e.to_string())?.forget();
    Ok(cx.attempt())
}

#[tokio::test]
async fn a_stopping_worker_lets_running_jobs_end_and_starts_no_other() {
    let stage = Stage::new().await;
    let log = Log::default();
    let builder = stage.worker().concurrency(1).options(quick()).state(log.clone()).state(Semaphore::new(0));
    let release = |cx: JobContext, gate: State<Semaphore>| async move {
        gate.add_permits(1);
        cx.attempt()
    };
    let worker = start(builder.handler("gated", gated).handler("release", release));
    let running = stage.enqueue(job("gated").job_id("running")).await;
    log.until(1).await;
    let next = stage.enqueue(job("gated").job_id("next")).await;
    worker.shutdown.request();
    // The stage of the worker is visible while it waits for the running job.
    let id = worker.id.clone();
    eventually(|| async {
        let workers = WorkerRegistry::new(stage.storage.clone()).list().await.unwrap();
        workers.iter().any(|info| info.id == id && info.status == WorkerStatus::Stopping && info.running_count == 1)
    })
    .await;
    // Only another worker can release it: this one takes no more jobs.
    let shared = start(stage.worker().options(quick()).handler("other", || async {}));
    shared.stop().await;
    assert_eq!(stage.status(next.id()).await, JobStatus::Pending);
    assert_eq!(stage.status(running.id()).await, JobStatus::Running);
    worker.shutdown.request();
    let report = worker.end().await.unwrap();
    assert_eq!((report.completed, report.handed_back), (0, 1));
    assert!(
        WorkerRegistry::new(stage.storage.clone()).list().await.unwrap().is_empty(),
        "a clean stop removes the entry"
    );
}

#[tokio::test]
async fn a_job_that_ends_while_the_worker_stops_is_settled() {
    let stage = Stage::new().await;
    let log = Log::default();
    let slow = |log: State<Log>| async move {
        log.note("start");
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    let worker = start(stage.worker().options(quick()).state(log.clone()).handler("slow", slow));
    let slow = stage.enqueue(job("slow")).await;
    log.until(1).await;
    let report = worker.stop().await;
    assert_eq!((report.completed, report.handed_back), (1, 0));
    assert_eq!(stage.status(slow.id()).await, JobStatus::Completed);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_handed_back_with_its_attempt_and_without_suspicion() {
    let stage = Stage::new().await;
    let log = Log::default();
    let options = WorkerOptions { shutdown_timeout: Duration::from_millis(100), ..quick() };
    let obeys = |cx: JobContext, log: State<Log>, token: CancellationToken| async move {
        log.note(format!("start {}", cx.id()));
        token.cancelled().await;
        Err::<(), _>("told to stop".to_owned())
    };
    let worker = start(
        stage
            .worker()
            .options(options)
            .state(log.clone())
            .state(Semaphore::new(0))
            .handler("gated", gated)
            .handler("obeys", obeys),
    );
    let deaf = stage.enqueue(job("gated").job_id("deaf").max_retries(0)).await;
    let obedient = stage.enqueue(job("obeys").job_id("obedient").max_retries(0)).await;
    log.until(2).await;
    let report = worker.stop().await;
    assert_eq!((report.handed_back, report.failed, report.retried), (2, 0, 0));
    for handle in [&deaf, &obedient] {
        assert_eq!(stage.status(handle.id()).await, JobStatus::Pending);
    }
    // The next worker runs them as if nothing had been: first attempt, nothing counted.
    let second = start(
        stage
            .worker()
            .options(quick())
            .state(log.clone())
            .state(Semaphore::new(9))
            .handler("gated", gated)
            .handler("obeys", |cx: JobContext| async move { cx.attempt() }),
    );
    for handle in [&deaf, &obedient] {
        assert_eq!(stage.result(handle).await.result.unwrap().get(), "1");
    }
    let counted = stage.storage.kv_list(naq_services::storage::Bucket::Control, "suspect.").await.unwrap();
    assert!(counted.is_empty(), "{counted:?}");
    second.stop().await;
}

#[tokio::test]
async fn a_second_request_hands_back_at_once() {
    let stage = Stage::new().await;
    let log = Log::default();
    let options = WorkerOptions { shutdown_timeout: Duration::from_secs(3600), ..quick() };
    let builder = stage.worker().concurrency(5).options(options).state(log.clone()).state(Semaphore::new(0));
    let worker = start(builder.handler("gated", gated));
    for n in 0..20 {
        stage.enqueue(job("gated").job_id(format!("j{n}"))).await;
    }
    log.until(5).await;
    worker.shutdown.request();
    worker.shutdown.request();
    let report = worker.end().await.unwrap();
    assert_eq!(report.completed, 0);
    assert!(report.handed_back >= 5, "{report:?}");
    assert_eq!(stage.pending().await, 20);
}

#[tokio::test]
async fn a_dropped_run_stops_the_worker() {
    let stage = Stage::new().await;
    let log = Log::default();
    let builder = stage.worker().options(quick()).state(log.clone()).state(Semaphore::new(0));
    let worker = start(builder.handler("gated", gated));
    stage.enqueue(job("gated").job_id("dropped")).await;
    log.until(1).await;
    drop(worker);
    eventually(|| async { stage.pending().await == 1 }).await;
}

#[tokio::test]
async fn a_burst_ends_when_nothing_is_left_but_what_is_not_due() {
    let stage = Stage::new().await;
    let options = WorkerOptions { burst: true, scheduler: Some(naq_worker::SchedulerOptions::default()), ..quick() };
    for n in 0..200 {
        stage.enqueue(job("fine").job_id(format!("j{n}"))).await;
    }
    let now = stage.storage.now().await.unwrap();
    let due = stage.enqueue(job("fine").at(now.saturating_add(Duration::from_millis(30)))).await;
    let later = stage.enqueue(job("fine").delay(Duration::from_secs(3600))).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    let report = start(stage.worker().options(options).handler("fine", || async {})).end().await.unwrap();
    assert_eq!(report.completed, 201);
    assert_eq!(stage.status(due.id()).await, JobStatus::Completed);
    assert_eq!(stage.status(later.id()).await, JobStatus::Scheduled);
}
