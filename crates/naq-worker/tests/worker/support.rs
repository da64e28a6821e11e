//! A store, a worker on it, and bounded waits.

use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use naq_models::{JobId, JobResult, JobStatus, QueueName};
use naq_services::{
    EventService, JobHandle, JobService, JobSettings, NewJob,
    storage::{SharedStorage, sqlite},
};
use naq_worker::{Shutdown, Worker, WorkerBuilder, WorkerError, WorkerOptions, WorkerReport};
use tokio::{sync::Notify, task::JoinSet, time::timeout};

/// Every wait ends by then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    pub(crate) storage: SharedStorage,
    pub(crate) jobs: JobService,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("worker-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self::on(sqlite::open(sqlite::SqliteOptions::memory(name)).await.unwrap())
    }

    pub(crate) fn on(storage: SharedStorage) -> Self {
        Self { jobs: JobService::new(storage.clone(), JobSettings::default()), storage }
    }

    /// The same store, with events told to `events`.
    pub(crate) fn telling(self, events: &EventService) -> Self {
        Self { jobs: self.jobs.with_events(events.hook().clone()), storage: self.storage }
    }

    pub(crate) fn worker(&self) -> WorkerBuilder {
        Worker::builder(self.storage.clone()).events(self.jobs.events().clone())
    }

    pub(crate) async fn enqueue(&self, job: NewJob) -> JobHandle {
        self.jobs.enqueue(job).await.unwrap()
    }

    pub(crate) async fn result(&self, job: &JobHandle) -> JobResult {
        self.jobs.wait_for(job.id(), PATIENCE).await.unwrap()
    }

    pub(crate) async fn status(&self, id: &JobId) -> JobStatus {
        self.jobs.status(id).await.unwrap().status
    }

    /// Waits until a job stands at a status.
    pub(crate) async fn until(&self, id: &JobId, status: JobStatus) {
        eventually(|| async { self.status(id).await == status }).await;
    }

    pub(crate) async fn pending(&self) -> u64 {
        let stats = self.storage.queue_stats(Some(&QueueName::default())).await.unwrap();
        stats.iter().map(|stats| stats.pending.iter().sum::<u64>()).sum()
    }

    /// Stores bytes that no producer would as a job.
    pub(crate) async fn enqueue_bytes(&self, id: &str, body: &'static [u8]) -> JobId {
        use naq_services::storage::{Enqueued, Entry};
        let id = JobId::new(id).unwrap();
        let entry = Entry {
            address: naq_models::Address {
                id: id.clone(),
                queue: QueueName::default(),
                priority: naq_models::Priority::default(),
                stored_at: self.storage.now().await.unwrap(),
            },
            status: JobStatus::Pending,
            run_at: None,
            kind: "garbage".into(),
            run: 1,
            generation: 0,
            body: Bytes::from_static(body),
        };
        assert_eq!(self.storage.enqueue(vec![entry]).await.pop().unwrap().unwrap(), Enqueued::Stored);
        id
    }
}

pub(crate) fn job(kind: &str) -> NewJob {
    NewJob::new(kind, serde_json::json!({}))
}

/// Options for tests: a short lease, no scheduler.
pub(crate) fn quick() -> WorkerOptions {
    WorkerOptions {
        lease: Duration::from_secs(2),
        timeout_grace: Duration::from_millis(300),
        shutdown_timeout: Duration::from_secs(10),
        scheduler: None,
        ..WorkerOptions::default()
    }
}

/// A worker that runs beside the test.
pub(crate) struct Started {
    pub(crate) shutdown: Shutdown,
    pub(crate) id: String,
    task: JoinSet<Result<WorkerReport, WorkerError>>,
}

pub(crate) fn start(builder: WorkerBuilder) -> Started {
    start_built(builder.build().unwrap())
}

pub(crate) fn start_built(worker: Worker) -> Started {
    let (shutdown, id) = (Shutdown::new(), worker.id().to_owned());
    let mut task = JoinSet::new();
    task.spawn(worker.run(shutdown.clone()));
    Started { shutdown, id, task }
}

impl Started {
    pub(crate) async fn end(mut self) -> Result<WorkerReport, WorkerError> {
        timeout(PATIENCE, self.task.join_next()).await.expect("the worker does not end").unwrap().unwrap()
    }

    pub(crate) async fn stop(self) -> WorkerReport {
        self.shutdown.request();
        self.end().await.unwrap()
    }
}

/// Looks again and again until it holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(holds: impl Fn() -> F) {
    let looking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, looking).await.expect("it never came to hold");
}

/// What handlers note, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Vec<String>>, Notify)>);

impl Log {
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.0.0.lock().unwrap().push(text.into());
        self.0.1.notify_waiters();
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, text: &str) -> usize {
        self.all().iter().filter(|note| *note == text).count()
    }

    pub(crate) async fn until(&self, count: usize) {
        let waiting = async {
            loop {
                let noted = self.0.1.notified();
                if self.all().len() >= count {
                    return;
                }
                noted.await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("only {:?}", self.all()));
    }
}
