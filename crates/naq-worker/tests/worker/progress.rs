//! What a handler says of how far it is: seen from outside while it runs, gone when it has ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use naq_config::EventsConfig;
use naq_models::{EventType, JobStatus};
use naq_services::{EventService, Failure, JobContext, storage::Bucket};

use crate::support::{PATIENCE, Stage, eventually, job, quick, start};

/// Catches: a report that waits for the store, a write for each report, and a newest one that is lost among many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_reports_cost_a_few_writes_and_the_newest_is_seen() {
    let stage = Stage::new().await;
    let events = EventService::new(stage.storage.clone(), &EventsConfig::default());
    let stage = stage.telling(&events);
    let go_on = Arc::new(AtomicBool::new(false));
    let handler = {
        let go_on = Arc::clone(&go_on);
        move |cx: JobContext| {
            let go_on = Arc::clone(&go_on);
            async move {
                let begun = Instant::now();
                for n in 0..100_000 {
                    cx.progress(f64::from(n) / 200_000.0, format!("row {n}"));
                }
                let took = begun.elapsed();
                cx.progress(0.5, "half");
                while !go_on.load(Ordering::Acquire) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                cx.progress(1.0, "");
                Ok::<_, Failure>(u64::try_from(took.as_millis()).unwrap())
            }
        }
    };
    let worker = start(stage.worker().handler("long", handler).options(quick()));
    let long = stage.enqueue(job("long")).await;
    let mut reports = long.progress().await.unwrap();
    let mut seen = Vec::new();
    let following = async {
        while let Some(progress) = reports.next().await {
            let is_half = progress.message.as_deref() == Some("half");
            seen.push(progress);
            if is_half {
                let status = stage.jobs.status(long.id()).await.unwrap();
                assert_eq!(status.progress.as_ref(), seen.last());
                go_on.store(true, Ordering::Release);
            }
        }
    };
    tokio::time::timeout(PATIENCE, following).await.expect("the stream ends with the job");
    assert!(seen.len() <= 8, "{} reports were stored", seen.len());
    assert!(seen.is_sorted_by(|a, b| a.fraction <= b.fraction && a.at <= b.at), "{seen:?}");
    assert!(seen.iter().all(|progress| progress.attempt == 1));

    let took: u64 = long.result_within(PATIENCE).await.unwrap().to().unwrap();
    assert!(took < 5_000, "100 000 reports took {took} ms");
    assert_eq!(stage.jobs.status(long.id()).await.unwrap().progress, None, "of a job that has ended");
    eventually(|| async { stage.storage.kv_list(Bucket::Progress, "").await.unwrap().is_empty() }).await;
    worker.stop().await;
    assert!(events.flush(PATIENCE).await);
    let history = events.history(long.id()).await.unwrap();
    let told = history.iter().filter(|event| event.event_type == EventType::Progress);
    let told: Vec<_> = told.map(|event| (event.details.fraction, event.details.message.as_deref())).collect();
    assert!(told.contains(&(Some(0.5), Some("half"))) && told.len() <= 8, "{told:?}");
}

/// Catches: progress that a retry takes away although its producer still waits, and that outlives a worker's stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_survives_a_retry_and_ends_with_the_job() {
    let stage = Stage::new().await;
    let handler = |cx: JobContext| async move {
        cx.progress(0.25 * f64::from(cx.attempt()), "trying");
        // Long enough to be stored.
        tokio::time::sleep(Duration::from_millis(700)).await;
        if cx.is_last_attempt() { Ok(()) } else { Err(Failure::new("net", "down")) }
    };
    let worker = start(stage.worker().handler("flaky", handler).options(quick()));
    let flaky = stage.enqueue(job("flaky").max_retries(1).retry_delay(Duration::from_secs(600))).await;
    stage.until(flaky.id(), JobStatus::Retry).await;
    let waits = stage.jobs.status(flaky.id()).await.unwrap();
    let progress = waits.progress.expect("it said how far it was");
    assert_eq!((progress.fraction, progress.attempt, progress.message.as_deref()), (0.25, 1, Some("trying")));
    stage.jobs.cancel(flaky.id(), "enough").await.unwrap();
    assert_eq!(stage.jobs.status(flaky.id()).await.unwrap().progress, None);

    // The worker is stopped at once after the end: what it wrote of the job goes all the same.
    let last = stage.enqueue(job("flaky").max_retries(0)).await;
    stage.until(last.id(), JobStatus::Running).await;
    worker.stop().await;
    assert_eq!(stage.status(last.id()).await, JobStatus::Completed);
    assert_eq!(stage.storage.kv_get(Bucket::Progress, last.id().as_str()).await.unwrap(), None);
}

/// Catches: a stream that never ends because its job is done already, or keeps no result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_although_its_job_is_done_or_keeps_no_result() {
    let stage = Stage::new().await;
    let handler = |cx: JobContext| async move {
        cx.progress(0.5, "");
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok::<_, Failure>(())
    };
    let worker = start(stage.worker().handler("short", handler).options(quick()));
    let done = stage.enqueue(job("short")).await;
    stage.until(done.id(), JobStatus::Completed).await;
    let count = async |handle: naq_services::JobHandle| {
        let reports = handle.progress().await.unwrap();
        tokio::time::timeout(PATIENCE, reports.count()).await.expect("the stream does not end")
    };
    assert!(count(done).await <= 1);
    let forgotten = stage.enqueue(job("short").result_ttl(Duration::ZERO)).await;
    assert_eq!(count(forgotten).await, 1);
    worker.stop().await;
}
