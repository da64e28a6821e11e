//! The free functions and their blocking twins, from where programs call them: plain threads, a runtime's threads,
//! several runtimes one after the other.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use naq_models::{JobStatus, ScheduleStatus};
use naq_queue::{
    NewJob, Queue, QueueErrorKind, ResultErrorKind, ResultState, Schedule, cancel_scheduled_job_sync, connect,
    connect_sync, disconnect_sync, enqueue, enqueue_all_sync, enqueue_in, enqueue_in_sync, enqueue_many_sync,
    enqueue_sync, fetch_job_result_sync, get_scheduled_job_sync, install, list_scheduled_jobs_sync, list_workers,
    list_workers_sync, modify_scheduled_job_sync, pause_scheduled_job, pause_scheduled_job_sync, purge_queue,
    purge_queue_sync, resume_scheduled_job_sync, run_async_from_sync, schedule, schedule_sync,
    trigger_scheduled_job_sync, wait_for_result_sync,
};
use naq_services::{JobServiceErrorKind, SchedulerServiceErrorKind, ServiceErrorKind, ServiceManager, storage::Bucket};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

const LONG: Duration = Duration::from_secs(20);

/// The connection is the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn job(id: &str) -> NewJob {
    NewJob::new("k", json!({})).job_id(id)
}

fn status(id: &str) -> JobStatus {
    match fetch_job_result_sync(id).unwrap() {
        ResultState::Ended(result) => result.status,
        ResultState::Unfinished(view) => view.status,
    }
}

#[test]
fn plain_threads() {
    let _alone = alone();
    connect_sync("memory://plain").unwrap();
    let handle = enqueue_sync(job("a")).unwrap();
    enqueue_in_sync(Duration::from_secs(60), job("later")).unwrap();
    assert_eq!((status("a"), status("later")), (JobStatus::Pending, JobStatus::Scheduled));
    thread::scope(|scope| {
        for n in 0..20 {
            scope.spawn(move || enqueue_sync(job(&format!("t{n}"))).unwrap());
        }
    });
    let outcomes = enqueue_many_sync(vec![job("t0"), job("m"), job("x").queue("no.name")]).unwrap();
    let duplicates: Vec<_> = outcomes.iter().map(|o| o.as_ref().ok().map(|receipt| receipt.duplicate)).collect();
    assert_eq!(duplicates, [Some(true), Some(false), None]);
    assert_eq!(enqueue_all_sync(vec![job("n"), job("o")]).unwrap().len(), 2);
    let refused = enqueue_all_sync(vec![job("p"), job("m")]).unwrap_err().kind();
    assert_eq!(refused, QueueErrorKind::Job(JobServiceErrorKind::Conflict));
    assert_eq!(purge_queue_sync("default").unwrap(), 24);
    let error = wait_for_result_sync(&handle, LONG).unwrap().unwrap_err();
    assert_eq!(error.kind(), ResultErrorKind::Cancelled);
    disconnect_sync().unwrap();
}

#[test]
fn blocking_calls_within_runtimes() {
    let _alone = alone();
    for runtime in [one_thread(), two_threads()] {
        runtime.block_on(async {
            connect_sync("memory://within").unwrap();
            enqueue_sync(job("a")).unwrap();
            // Both kinds side by side.
            assert!(enqueue(job("a")).await.unwrap().receipt().unwrap().duplicate);
            assert_eq!(purge_queue_sync("default").unwrap(), 1);
            disconnect_sync().unwrap();
        });
    }
}

#[test]
fn the_connection_outlives_the_runtime_that_opened_it() {
    let _alone = alone();
    let first = one_thread();
    let handle = first.block_on(async {
        connect("memory://outlives").await.unwrap();
        enqueue(job("a")).await.unwrap()
    });
    drop(first);
    let second = two_threads();
    second.block_on(async {
        enqueue_in(Duration::ZERO, job("b")).await.unwrap();
        assert_eq!(handle.status().await.unwrap().status, JobStatus::Pending);
        assert_eq!(purge_queue("default").await.unwrap(), 2);
        assert_eq!(handle.result_within(LONG).await.unwrap_err().kind(), ResultErrorKind::Cancelled);
    });
    drop(second);
    assert_eq!(status("b"), JobStatus::Cancelled);
    disconnect_sync().unwrap();
}

#[test]
fn mistakes_have_their_kind_and_leave_the_connection() {
    let _alone = alone();
    connect_sync("memory://mistakes").unwrap();
    enqueue_sync(job("a")).unwrap();
    assert_eq!(connect_sync("redis://h").unwrap_err().kind(), QueueErrorKind::Config);
    let nowhere = connect_sync("sqlite:///proc/none/naq.db").unwrap_err().kind();
    assert!(matches!(nowhere, QueueErrorKind::Service(ServiceErrorKind::Storage(_))), "{nowhere:?}");
    assert_eq!(purge_queue_sync("no.name").unwrap_err().kind(), QueueErrorKind::Name);
    let unknown = fetch_job_result_sync("none").unwrap_err().kind();
    assert_eq!(unknown, QueueErrorKind::Job(JobServiceErrorKind::NotFound));
    assert_eq!(status("a"), JobStatus::Pending);
    disconnect_sync().unwrap();
}

#[test]
fn a_program_lends_its_services() {
    let _alone = alone();
    let runtime = two_threads();
    runtime.block_on(async {
        let manager = ServiceManager::new(std::sync::Arc::default(), "memory://lent".parse().unwrap());
        let own = manager.jobs().await.unwrap();
        install(manager.clone()).await.unwrap();
        let handle = enqueue(job("a")).await.unwrap();
        disconnect_sync().unwrap();
        assert_eq!(own.status(handle.id()).await.unwrap().status, JobStatus::Pending, "it is still open");
        manager.close().await;
    });
}

#[test]
fn a_queue_of_its_own_connection() {
    two_threads().block_on(async {
        let mail = Queue::connect("mail", "memory://own").await.unwrap();
        let handle = mail.enqueue(job("a").queue("elsewhere")).await.unwrap();
        assert_eq!(handle.receipt().unwrap().queue.as_str(), "mail");
        mail.enqueue_in(Duration::from_secs(60), job("b")).await.unwrap();
        for outcome in mail.enqueue_many(vec![job("c"), job("d")]).await {
            assert_eq!(outcome.unwrap().queue.as_str(), "mail");
        }
        for receipt in mail.enqueue_all(vec![job("e"), job("f").queue("elsewhere")]).await.unwrap() {
            assert_eq!(receipt.queue.as_str(), "mail");
        }
        let stats = mail.stats().await.unwrap();
        assert_eq!((stats.pending, stats.scheduled), (5, 1));
        assert_eq!(mail.purge().await.unwrap(), 5);
        assert_eq!(Queue::connect("no.name", "memory://own").await.unwrap_err().kind(), QueueErrorKind::Name);
        mail.close().await;
        let closed = mail.stats().await.unwrap_err().kind();
        let expected = JobServiceErrorKind::Storage(naq_services::StorageErrorKind::Closed);
        assert_eq!(closed, QueueErrorKind::Job(expected));
    });
}

#[test]
fn recurring_jobs() {
    let _alone = alone();
    connect_sync("memory://recurring").unwrap();
    let hourly = || Schedule::every(Duration::from_secs(3600));
    let id = schedule_sync(job("nightly"), Schedule::cron("0 3 * * *")).unwrap().record.id;
    assert_eq!(id.as_str(), "nightly");
    let runtime = one_thread();
    assert!(runtime.block_on(schedule(job("other"), hourly())).unwrap().record.next.is_some());
    assert_eq!(list_scheduled_jobs_sync().unwrap().schedules.len(), 2);
    assert!(runtime.block_on(pause_scheduled_job("nightly")).unwrap().changed);
    assert!(!pause_scheduled_job_sync("nightly").unwrap().changed);
    assert_eq!(get_scheduled_job_sync("nightly").unwrap().status, ScheduleStatus::Paused);
    assert!(resume_scheduled_job_sync("nightly").unwrap().changed);
    assert!(modify_scheduled_job_sync("nightly", job("any"), hourly()).unwrap().changed);
    let run = trigger_scheduled_job_sync("nightly").unwrap();
    assert_eq!(status(run.job_id.as_str()), JobStatus::Pending);
    assert_eq!(cancel_scheduled_job_sync("nightly").unwrap().record.status, ScheduleStatus::Cancelled);
    let unknown = cancel_scheduled_job_sync("nobody").unwrap_err();
    assert_eq!(unknown.kind(), QueueErrorKind::Schedule(SchedulerServiceErrorKind::NotFound));
    assert!(unknown.hint().is_some());
    let wrong = schedule_sync(job("x"), Schedule::cron("* * * *")).unwrap_err();
    assert_eq!(wrong.kind(), QueueErrorKind::Schedule(SchedulerServiceErrorKind::Invalid));
    assert_eq!(cancel_scheduled_job_sync("a.b").unwrap_err().kind(), QueueErrorKind::Name);
    disconnect_sync().unwrap();
}

#[test]
fn who_works_on_the_store() {
    let _alone = alone();
    connect_sync("memory://workers").unwrap();
    assert!(list_workers_sync().unwrap().is_empty());
    two_threads().block_on(async {
        let services = Queue::open("default").await.unwrap();
        let entry = json!({
            "id": "w1", "host": "h", "pid": 1, "queues": ["mail:3"], "concurrency": 2, "running_count": 0, "running": [],
            "version": "0", "started_at": "2026-11-20T12:00:00.000Z", "seen_at": "2026-11-20T12:00:00.000Z", "status": "idle",
        });
        let storage = services.jobs().storage();
        storage.kv_create(Bucket::Workers, "w1", entry.to_string().into(), None).await.unwrap();
        let listed = list_workers().await.unwrap();
        assert_eq!(listed.iter().map(|worker| worker.id.as_str()).collect::<Vec<_>>(), ["w1"]);
    });
    disconnect_sync().unwrap();
}

#[test]
fn a_call_within_a_call() {
    let _alone = alone();
    connect_sync("memory://nested").unwrap();
    let outer = run_async_from_sync(async {
        let inner = enqueue_sync(job("a")).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        (inner, enqueue(job("b")).await.unwrap())
    });
    assert_eq!(outer.unwrap().1.id().as_str(), "b");
    disconnect_sync().unwrap();
}
