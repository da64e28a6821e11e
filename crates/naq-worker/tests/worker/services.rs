//! A worker over a program's services, and one that runs beside some work.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use naq_config::NaqConfig;
use naq_models::{JobId, JobStatus};
use naq_services::{Failure, JobContext, ServiceManager, State, WorkerRegistry, workers::WorkerStatus};
use naq_worker::{Worker, WorkerError};
use tokio::{sync::Semaphore, time::timeout};

use crate::support::{Log, PATIENCE, Stage, eventually, job, quick};

/// Services over a store of their own.
fn services(config: NaqConfig) -> ServiceManager {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let store = format!("memory://services-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    ServiceManager::new(Arc::new(config), store.parse().unwrap())
}

/// Catches: a worker over services that does not serve what the configuration says, or that tells nobody; children that get
/// other defaults than the jobs of the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_give_a_worker_their_configuration_and_their_events() {
    let mut config = NaqConfig::default();
    config.queues.default = "mail".parse().unwrap();
    config.workers.concurrency = 3;
    config.jobs.max_retries = 7;
    let services = services(config);
    let jobs = services.jobs().await.unwrap();
    let (log, gate) = (Log::default(), Arc::new(Semaphore::new(0)));
    let parent = async |cx: JobContext, log: State<Log>, gate: State<Arc<Semaphore>>| {
        log.note("parent");
        gate.acquire().await.map_err(|e| Failure::from_error(&e))?.forget();
        let child = cx.enqueue(job("child")).await?;
        Ok::<_, Failure>(child.id().to_string())
    };
    let worker = Worker::of(&services).await.unwrap().state(log.clone()).state(Arc::clone(&gate));
    let worker = worker.handler("parent", parent).handler("child", async |cx: JobContext| cx.job().retry.max_retries);
    let worker = worker.build().unwrap();

    let work = async {
        let parent = jobs.enqueue(job("parent")).await.unwrap();
        log.until(1).await;
        let registry = WorkerRegistry::new(services.storage().await.unwrap());
        eventually(|| async { !registry.list().await.unwrap().is_empty() }).await;
        let seen = registry.list().await.unwrap();
        gate.add_permits(1);
        let ended = jobs.wait_for(parent.id(), PATIENCE).await.unwrap();
        let child: JobId = serde_json::from_str(ended.result.unwrap().get()).unwrap();
        let of_child = jobs.wait_for(&child, PATIENCE).await.unwrap();
        (seen, parent, of_child)
    };
    let ((seen, parent, of_child), report) = worker.run_until(work).await.unwrap();
    assert_eq!((seen[0].queues.as_slice(), seen[0].concurrency), (&["mail".to_owned()][..], 3));
    assert_eq!(of_child.result.unwrap().get(), "7");
    assert_eq!(report.completed, 2);

    let events = services.events().await.unwrap();
    assert!(events.flush(PATIENCE).await);
    let history = events.history(parent.id()).await.unwrap();
    let told: Vec<_> = history.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(told, ["enqueued", "started", "completed"]);
    services.close().await;
}

/// Catches: a worker that is cut off, or stops at the second step, when the work is done; and one that does not stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_stops_when_the_work_is_done_and_lets_its_job_end() {
    let stage = Stage::new().await;
    let (log, gate) = (Log::default(), Arc::new(Semaphore::new(0)));
    let gated = async |cx: JobContext, log: State<Log>, gate: State<Arc<Semaphore>>| {
        log.note("start");
        tokio::select! {
            permit = gate.acquire() => permit.map(|permit| permit.forget()).map_err(|e| Failure::from_error(&e)),
            () = cx.cancelled() => Err(Failure::new("stopped", "told to stop at once")),
        }
    };
    let worker = stage.worker().options(quick()).state(log.clone()).state(Arc::clone(&gate));
    let worker = worker.handler("gated", gated).build().unwrap();
    let running = stage.enqueue(job("gated")).await;

    let work = async {
        log.until(1).await;
        "done"
    };
    let release = async {
        let registry = WorkerRegistry::new(stage.storage.clone());
        eventually(|| async { registry.list().await.unwrap().iter().any(|w| w.status == WorkerStatus::Stopping) })
            .await;
        gate.add_permits(1);
    };
    let (ended, ()) = timeout(PATIENCE, async { tokio::join!(worker.run_until(work), release) }).await.unwrap();
    let (value, report) = ended.unwrap();
    assert_eq!((value, report.completed, report.handed_back), ("done", 1, 0));
    assert_eq!(stage.status(running.id()).await, JobStatus::Completed);
}

/// Catches: work that goes on for ever beside a worker that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_fails_ends_the_work_with_its_error() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let stage = Stage::new().await;
    let dropped = Arc::new(AtomicBool::new(false));
    let guard = Dropped(Arc::clone(&dropped));
    let worker = stage.worker().options(quick()).handler("any", async || {}).build().unwrap();
    let work = async {
        let job = stage.enqueue(job("any")).await;
        stage.result(&job).await;
        stage.storage.close().await;
        pending::<()>().await;
        drop(guard);
    };
    let ended = timeout(PATIENCE, worker.run_until(work)).await.unwrap();
    assert!(matches!(ended, Err(WorkerError::Store { .. })), "{ended:?}");
    assert!(dropped.load(Ordering::Relaxed));
}

/// Catches: work that is dropped, or counts as undone, because nothing was left for the worker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_that_ends_first_waits_for_the_work() {
    let stage = Stage::new().await;
    let registry = WorkerRegistry::new(stage.storage.clone());
    let job = stage.enqueue(job("any")).await;
    let worker = stage.worker().options(quick()).burst().handler("any", async || {}).build().unwrap();
    let work = async {
        stage.until(job.id(), JobStatus::Completed).await;
        eventually(|| async { registry.list().await.unwrap().is_empty() }).await;
        // `run` returns a moment after the worker's entry is gone. If this were too short, less would be tested.
        tokio::time::sleep(Duration::from_millis(50)).await;
        7
    };
    let (value, report) = timeout(PATIENCE, worker.run_until(work)).await.unwrap().unwrap();
    assert_eq!((value, report.completed), (7, 1));
}
