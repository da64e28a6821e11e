//! What is due: fired in time, by one of many, whoever of them lives.

use std::time::Duration;

use naq_models::JobStatus;
use naq_services::{JobContext, State, storage::Bucket};
use naq_worker::{Scheduler, SchedulerOptions, Shutdown, WorkerOptions};
use tokio::task::JoinSet;

use crate::support::{Log, Stage, eventually, job, quick, start};

fn scheduling() -> WorkerOptions {
    WorkerOptions { scheduler: Some(SchedulerOptions::default()), ..quick() }
}

#[tokio::test]
async fn a_delayed_job_starts_within_100_ms_of_its_time() {
    let stage = Stage::new().await;
    let worker = start(stage.worker().options(scheduling()).handler("fine", || async {}));
    let mut late = Vec::new();
    for _ in 0..5 {
        let delayed = stage.enqueue(job("fine").delay(Duration::from_millis(150))).await;
        let result = stage.result(&delayed).await;
        let (due, started) = (result.run_at.unwrap(), result.started_at.unwrap());
        assert!(started >= due, "{started} is before {due}");
        late.push(started.since(due));
    }
    late.sort();
    assert!(late[2] <= Duration::from_millis(100), "{late:?}");
    worker.stop().await;
}

#[tokio::test]
async fn thousands_that_are_due_together_run_once_each() {
    let stage = Stage::new().await;
    let log = Log::default();
    let now = stage.storage.now().await.unwrap();
    let due = now.saturating_add(Duration::from_millis(300));
    let jobs = (0..3000).map(|n| job("note").at(due).job_id(format!("d{n}"))).collect();
    for stored in stage.jobs.enqueue_many(jobs).await {
        stored.unwrap();
    }
    let note = |cx: JobContext, log: State<Log>| async move { log.note(cx.id().as_str()) };
    let workers: Vec<_> =
        (0..2).map(|_| start(stage.worker().options(scheduling()).state(log.clone()).handler("note", note))).collect();
    log.until(3000).await;
    let mut completed = 0;
    for worker in workers {
        completed += worker.stop().await.completed;
    }
    let mut ids = log.all();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), completed), (3000, 3000));
}

#[tokio::test]
async fn a_standby_takes_over_at_once_from_a_clean_stop_and_in_time_from_a_dead_leader() {
    let stage = Stage::new().await;
    let options = SchedulerOptions {
        lock_ttl: Duration::from_secs(1),
        lock_renew_interval: Duration::from_millis(300),
        ..SchedulerOptions::default()
    };
    let holder = || async {
        let entry = stage.storage.kv_get(Bucket::Locks, "scheduler").await.unwrap()?;
        let lock: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
        Some((lock["holder"].as_str().unwrap().to_owned(), lock["term"].as_u64().unwrap()))
    };
    let run = |name: &'static str| {
        let scheduler = Scheduler::new(stage.storage.clone(), name, options.clone(), naq_models::WireFormat::Json);
        let (shutdown, stop) = (Shutdown::new(), Shutdown::new());
        let (graceful, killed) = (shutdown.clone(), stop.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            tokio::select! {
                ended = scheduler.run(&graceful) => ended.unwrap(),
                () = killed.requested() => {}
            }
        });
        (shutdown, stop, task)
    };
    let (first, _, _first_task) = run("first");
    eventually(|| async { holder().await.is_some_and(|(name, _)| name == "first") }).await;
    let (_, kill_second, _second_task) = run("second");
    let asked = std::time::Instant::now();
    first.request();
    eventually(|| async { holder().await.is_some_and(|(name, _)| name == "second") }).await;
    assert!(asked.elapsed() < Duration::from_millis(900), "a clean stop leaves no gap: {:?}", asked.elapsed());
    // The second one dies without a word; the third waits for the lease to run out, and not longer.
    let (_third, _, _third_task) = run("third");
    kill_second.request();
    let asked = std::time::Instant::now();
    eventually(|| async { holder().await.is_some_and(|(name, _)| name == "third") }).await;
    let waited = asked.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
    let worker = start(stage.worker().options(quick()).handler("fine", || async {}));
    let delayed = stage.enqueue(job("fine").delay(Duration::from_millis(20))).await;
    assert_eq!(stage.result(&delayed).await.status, JobStatus::Completed);
    worker.stop().await;
}

#[tokio::test]
async fn an_unreadable_scheduled_entry_is_a_dead_letter_and_holds_nobody_up() {
    use naq_services::storage::{Entry, Sighting};
    let stage = Stage::new().await;
    let now = stage.storage.now().await.unwrap();
    let garbage = Entry {
        address: naq_models::Address {
            id: naq_models::JobId::new("garbage").unwrap(),
            queue: naq_models::QueueName::default(),
            priority: naq_models::Priority::default(),
            stored_at: now,
        },
        status: JobStatus::Scheduled,
        run_at: Some(now),
        kind: "k".into(),
        run: 1,
        generation: 0,
        body: bytes::Bytes::from_static(b"[not a job]"),
    };
    let id = garbage.address.id.clone();
    stage.storage.enqueue(vec![garbage]).await.pop().unwrap().unwrap();
    let worker = start(stage.worker().options(scheduling()).handler("fine", || async {}));
    let fine = stage.enqueue(job("fine").delay(Duration::from_millis(20))).await;
    assert_eq!(stage.result(&fine).await.status, JobStatus::Completed);
    let dead = || async {
        let seen = stage.storage.get_job(&id).await.unwrap();
        seen.iter().any(|seen| matches!(seen, Sighting::Dead(letter) if &letter.body[..] == b"[not a job]"))
    };
    eventually(dead).await;
    worker.stop().await;
}
