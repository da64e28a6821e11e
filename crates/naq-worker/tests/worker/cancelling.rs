//! Operators at work: cancelled jobs and paused queues.

use std::time::Duration;

use naq_models::{JobStatus, QueueName};
use naq_services::{CancellationToken, JobContext, State, jobs::CancelOutcome};

use crate::support::{Log, Stage, eventually, job, quick, start};

async fn until_told(cx: JobContext, log: State<Log>, token: CancellationToken) -> Result<(), String> {
    log.note(format!("start {}", cx.id()));
    token.cancelled().await;
    log.note(format!("told {}", cx.id()));
    Err("stopped".into())
}

#[tokio::test]
async fn a_running_job_is_told_and_ends_cancelled_not_retried() {
    let stage = Stage::new().await;
    let log = Log::default();
    let worker = start(stage.worker().options(quick()).state(log.clone()).handler("waits", until_told));
    let running = stage.enqueue(job("waits").job_id("r")).await;
    log.until(1).await;
    let outcome = stage.jobs.cancel(running.id(), "no longer wanted").await.unwrap();
    assert!(matches!(outcome, CancelOutcome::Cancelled { .. }), "{outcome:?}");
    log.until(2).await;
    let result = stage.result(&running).await;
    assert_eq!((result.status, result.error.unwrap().message.as_str()), (JobStatus::Cancelled, "no longer wanted"));
    let report = worker.stop().await;
    assert_eq!((report.retried, report.failed, report.already_ended + report.lost), (0, 0, 1), "{report:?}");
    assert_eq!(stage.status(running.id()).await, JobStatus::Cancelled);
}

#[tokio::test]
async fn a_handler_that_ignores_its_token_is_abandoned_after_the_grace() {
    let stage = Stage::new().await;
    let log = Log::default();
    let deaf = |log: State<Log>| async move {
        log.note("deaf");
        std::future::pending::<()>().await;
    };
    let worker = start(
        stage
            .worker()
            .concurrency(1)
            .options(quick())
            .state(log.clone())
            .handler("deaf", deaf)
            .handler("fine", || async {}),
    );
    let deaf = stage.enqueue(job("deaf")).await;
    log.until(1).await;
    stage.jobs.cancel(deaf.id(), "enough").await.unwrap();
    let next = stage.enqueue(job("fine")).await;
    assert_eq!(stage.result(&next).await.status, JobStatus::Completed, "the only slot is free again");
    worker.stop().await;
}

#[tokio::test]
async fn a_paused_queue_starts_nothing_until_it_is_resumed() {
    let stage = Stage::new().await;
    let log = Log::default();
    let queue = QueueName::default();
    stage.jobs.pause(&queue).await.unwrap();
    let note = |cx: JobContext, log: State<Log>| async move { log.note(cx.id().as_str()) };
    let worker = start(stage.worker().options(quick()).state(log.clone()).handler("note", note));
    let first = stage.enqueue(job("note").job_id("first")).await;
    let elsewhere = start(
        stage
            .worker()
            .queue(QueueName::new("other").unwrap())
            .options(quick())
            .state(log.clone())
            .handler("note", note),
    );
    let other = stage.enqueue(job("note").queue("other").job_id("other")).await;
    stage.result(&other).await;
    assert_eq!((log.all(), stage.status(first.id()).await), (vec!["other".to_owned()], JobStatus::Pending));
    stage.jobs.resume(&queue).await.unwrap();
    stage.result(&first).await;
    // Paused while it serves: what comes later waits.
    stage.jobs.pause(&queue).await.unwrap();
    eventually(|| async {
        let held = stage.enqueue(job("note")).await;
        let waited = stage.jobs.wait_for(held.id(), Duration::from_millis(200)).await;
        waited.is_err()
    })
    .await;
    worker.stop().await;
    elsewhere.stop().await;
}

#[tokio::test]
async fn an_intent_from_before_the_start_keeps_a_job_from_starting() {
    use naq_services::storage::Bucket;
    let stage = Stage::new().await;
    let log = Log::default();
    let note = |cx: JobContext, log: State<Log>| async move { log.note(cx.id().as_str()) };
    let doomed = stage.enqueue(job("note").job_id("doomed")).await;
    // A canceller that died after its first write.
    stage.storage.kv_create(Bucket::Control, "cancel.doomed", "{}".into(), None).await.unwrap();
    let worker = start(stage.worker().options(quick()).state(log.clone()).handler("note", note));
    assert_eq!(stage.result(&doomed).await.status, JobStatus::Cancelled);
    let report = worker.stop().await;
    assert_eq!((report.cancelled, log.all().len()), (1, 0));
}
