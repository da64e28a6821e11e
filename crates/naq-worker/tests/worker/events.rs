//! What a worker tells, and that a store which takes no events holds up no job.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use naq_config::EventsConfig;
use naq_models::{Event, EventFilter, EventType, JobId, JobStatus};
use naq_services::{EventService, Failure, NewJob};
use naq_worker::SchedulerOptions;

use crate::{
    faulty::Faulty,
    support::{PATIENCE, Stage, job, quick, start},
};

fn config() -> EventsConfig {
    EventsConfig { flush_interval: Duration::from_millis(20), ..EventsConfig::default() }
}

async fn types(events: &EventService, id: &JobId) -> Vec<String> {
    assert!(events.flush(PATIENCE).await);
    let history = events.history(id).await.unwrap();
    history.iter().map(|event| event.event_type.to_string()).collect()
}

fn newest<'a>(history: &'a [Event], event_type: &EventType) -> &'a Event {
    history.iter().rev().find(|event| event.event_type == *event_type).expect("no such event")
}

/// Catches: steps of a job that nobody tells, or tells twice, and details that are wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_a_job_is_told_once() {
    let stage = Stage::new().await;
    let events = EventService::new(stage.storage.clone(), &config());
    let stage = stage.telling(&events);
    let scheduler = Some(SchedulerOptions::default());
    let worker = stage
        .worker()
        .handler("good", || async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok::<_, Failure>(())
        })
        .handler("bad", || async { Err::<(), _>(Failure::new("smtp", "no route")) })
        .options(naq_worker::WorkerOptions { scheduler, ..quick() });
    let worker = start(worker);
    let good = stage.enqueue(job("good")).await;
    stage.until(good.id(), JobStatus::Completed).await;
    let bad = stage.enqueue(job("bad").max_retries(1).retry_delay(Duration::from_millis(50))).await;
    stage.until(bad.id(), JobStatus::Failed).await;
    let waits = stage.enqueue(job("good").delay(Duration::from_secs(600))).await;
    stage.jobs.cancel(waits.id(), "not needed").await.unwrap();
    let id = worker.id.clone();
    worker.stop().await;

    assert_eq!(types(&events, good.id()).await, ["enqueued", "started", "completed"]);
    let history = events.history(good.id()).await.unwrap();
    let completed = newest(&history, &EventType::Completed);
    let ran = completed.details.duration.unwrap();
    assert!(ran >= Duration::from_millis(30) && ran < PATIENCE, "{ran:?}");
    assert_eq!((completed.kind.as_deref(), completed.attempt), (Some("good"), Some(1)));
    assert_eq!(completed.worker_id.as_deref(), Some(id.as_str()));
    assert!(newest(&history, &EventType::Started).details.wait.is_some());

    let steps = ["enqueued", "started", "retry_scheduled", "started", "failed", "dead_lettered"];
    assert_eq!(types(&events, bad.id()).await, steps);
    let history = events.history(bad.id()).await.unwrap();
    for event_type in [EventType::RetryScheduled, EventType::Failed] {
        let details = &newest(&history, &event_type).details;
        assert_eq!((details.error_type.as_deref(), details.message.as_deref()), (Some("smtp"), Some("no route")));
    }
    assert!(newest(&history, &EventType::RetryScheduled).details.run_at.is_some());
    assert_eq!(newest(&history, &EventType::Failed).attempt, Some(2));

    assert_eq!(types(&events, waits.id()).await, ["scheduled", "cancelled"]);
    let filter = EventFilter { worker: Some(id), ..EventFilter::default() };
    let (own, _) = events.recent(&filter, 1000).await.unwrap();
    let own: Vec<&str> = own.iter().filter(|event| event.job_id.is_none()).map(|e| e.event_type.as_str()).collect();
    assert_eq!((own.first(), own.last()), (Some(&"worker_started"), Some(&"worker_stopped")), "{own:?}");
    for told in ["leader_elected", "leader_lost"] {
        assert_eq!(own.iter().filter(|name| **name == told).count(), 1, "{told} in {own:?}");
    }
    assert!(!own.contains(&"worker_heartbeat"), "heartbeats are left out: {own:?}");
    assert_eq!(events.dropped(), 0);
}

/// Catches: a full event store that stops jobs, memory that grows with it, and drops that nobody counts or is told of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_go_on_while_no_event_can_be_stored_and_drops_are_counted() {
    let faulty = Faulty::on(Stage::new().await.storage);
    let small = EventsConfig { max_buffer_size: 100, batch_size: 50, ..config() };
    let events = EventService::new(faulty.clone(), &small);
    let stage = Stage::on(faulty.clone()).telling(&events);
    faulty.events_down(true);
    let worker = start(stage.worker().handler("good", || async { Ok::<_, Failure>(()) }).options(quick()));
    let many = (0..400).map(|_| job("good")).collect::<Vec<_>>();
    let receipts: Vec<_> = stage.jobs.enqueue_many(many).await.into_iter().map(Result::unwrap).collect();
    for receipt in &receipts {
        stage.until(&receipt.job_id, JobStatus::Completed).await;
    }
    let dropped = events.dropped();
    assert!(dropped >= 400, "of over 1200 events at most 100 may wait, but only {dropped} were dropped");

    faulty.events_down(false);
    assert!(events.flush(PATIENCE).await);
    let last = stage.enqueue(job("good")).await;
    stage.until(last.id(), JobStatus::Completed).await;
    worker.stop().await;
    assert_eq!(types(&events, last.id()).await, ["enqueued", "started", "completed"]);
    let filter = EventFilter { types: vec![EventType::EventsDropped], ..EventFilter::default() };
    let told = || async {
        let (found, _) = events.recent(&filter, 100).await.unwrap();
        found.iter().filter_map(|event| event.details.count).sum::<u64>() == events.dropped()
    };
    crate::support::eventually(told).await;
}

/// Catches: a call of the store that does not come back and keeps jobs, or the end of the process, waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_never_answers_holds_up_neither_jobs_nor_the_end() {
    let faulty = Faulty::on(Stage::new().await.storage);
    let events = Arc::new(EventService::new(faulty.clone(), &config()));
    let stage = Stage::on(faulty.clone()).telling(&events);
    faulty.events_hang();
    let worker = start(stage.worker().handler("good", || async { Ok::<_, Failure>(()) }).options(quick()));
    for _ in 0..20 {
        let done = stage.enqueue(NewJob::new("good", serde_json::json!({}))).await;
        stage.until(done.id(), JobStatus::Completed).await;
    }
    worker.stop().await;
    let closing = Instant::now();
    naq_services::Service::close(&*events).await;
    assert!(closing.elapsed() < Duration::from_secs(6), "{:?}", closing.elapsed());
}
