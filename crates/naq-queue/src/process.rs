//! The process-wide connection and the free functions over it.
//!
//! Invariant: at most one connection is current; it is opened on first use, from the configuration of the process, on
//! the background runtime. `connect` and `install` replace it, `disconnect` closes it; a call that began before goes
//! to the one it began with.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use naq_config::{FlagOverride, LoadOptions, load};
use naq_models::{JobId, QueueName, Timestamp};
use naq_services::{
    JobHandle, JobService, NewJob, Receipt, Service, ServiceManager, WorkerInfo, WorkerRegistry, jobs::ResultState,
};

use crate::{QueueError, Result, background};

static CURRENT: Mutex<Option<Arc<Connection>>> = Mutex::new(None);

struct Connection {
    manager: ServiceManager,
    /// Somebody else's services are never closed here.
    lent: bool,
    /// Once opened, so that a call needs no detour over the background runtime.
    jobs: OnceLock<JobService>,
}

impl Connection {
    fn own(manager: ServiceManager) -> Arc<Self> {
        Arc::new(Self { manager, lent: false, jobs: OnceLock::new() })
    }

    fn lent(manager: ServiceManager) -> Arc<Self> {
        Arc::new(Self { manager, lent: true, jobs: OnceLock::new() })
    }

    async fn jobs(&self) -> Result<JobService> {
        if let Some(jobs) = self.jobs.get() {
            return Ok(jobs.clone());
        }
        let manager = self.manager.clone();
        let jobs = background::run(async move { manager.jobs().await }).await?.map_err(QueueError::service)?;
        Ok(self.jobs.get_or_init(|| jobs).clone())
    }

    async fn close(&self) -> Result<()> {
        if self.lent {
            return Ok(());
        }
        let manager = self.manager.clone();
        background::run(async move { manager.close().await }).await
    }
}

fn current() -> MutexGuard<'static, Option<Arc<Connection>>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A manager from the files and variables of the process; `url` overrides the store.
pub(crate) fn manager_of_process(url: Option<&str>) -> Result<ServiceManager> {
    let mut options = LoadOptions::of_process(None);
    options.flags.extend(url.map(|url| FlagOverride::new("connect", "storage.url", url)));
    let loaded = load(&options).map_err(QueueError::config)?;
    ServiceManager::from_loaded(loaded).map_err(QueueError::no_store)
}

/// The current connection; a new one, which opens nothing yet, if there is none.
fn connection() -> Result<Arc<Connection>> {
    let mut current = current();
    match &*current {
        Some(connection) => Ok(Arc::clone(connection)),
        None => Ok(Arc::clone(current.insert(Connection::own(manager_of_process(None)?)))),
    }
}

pub(crate) async fn jobs() -> Result<JobService> {
    connection()?.jobs().await
}

/// A service of the process-wide connection.
pub(crate) async fn service<S: Service>() -> Result<Arc<S>> {
    let manager = connection()?.manager.clone();
    background::run(async move { manager.get::<S>().await }).await?.map_err(QueueError::service)
}

async fn replace(next: Option<Arc<Connection>>) -> Result<()> {
    let previous = std::mem::replace(&mut *current(), next);
    match previous {
        Some(previous) => previous.close().await,
        None => Ok(()),
    }
}

/// Connects the free functions to a store: `sqlite:PATH`, `nats://HOST:PORT`, `memory://NAME`. Everything else is
/// configured as usual. What was connected before is closed.
///
/// # Errors
/// If the configuration is wrong or the store cannot be opened; then the connection before stays.
pub async fn connect(url: &str) -> Result<()> {
    let connection = Connection::own(manager_of_process(Some(url))?);
    connection.jobs().await?;
    replace(Some(connection)).await
}

/// Lets the free functions use the services of a program that has its own, for example a worker's. They are opened on
/// the background runtime, unless they are open already, and stay the program's to close. What was connected before is
/// closed.
///
/// # Errors
/// If the thread of the connection cannot be started.
pub async fn install(manager: ServiceManager) -> Result<()> {
    replace(Some(Connection::lent(manager))).await
}

/// Closes the process-wide connection, if it is open. The next call opens it anew.
///
/// # Errors
/// If the thread of the connection cannot be started.
pub async fn disconnect() -> Result<()> {
    replace(None).await
}

/// Stores a job durably. Opens the process-wide connection if it is not open: see [`connect`].
///
/// # Errors
/// If the job is not valid or too large, the configuration is wrong, or the store fails.
pub async fn enqueue<R>(job: NewJob<R>) -> Result<JobHandle<R>> {
    jobs().await?.enqueue(job).await.map_err(QueueError::job)
}

/// Stores a job that runs no earlier than `time`.
///
/// # Errors
/// As [`enqueue`].
pub async fn enqueue_at<R>(time: Timestamp, job: NewJob<R>) -> Result<JobHandle<R>> {
    enqueue(job.at(time)).await
}

/// Stores a job that runs no earlier than `delay` from now.
///
/// # Errors
/// As [`enqueue`].
pub async fn enqueue_in<R>(delay: Duration, job: NewJob<R>) -> Result<JobHandle<R>> {
    enqueue(job.delay(delay)).await
}

/// Stores many jobs, in batches. One outcome per job, in order.
///
/// # Errors
/// If the store cannot be opened.
pub async fn enqueue_many<R>(new: Vec<NewJob<R>>) -> Result<Vec<Result<Receipt>>> {
    let outcomes = jobs().await?.enqueue_many(new).await;
    Ok(outcomes.into_iter().map(|outcome| outcome.map_err(QueueError::job)).collect())
}

/// Stores all of these jobs, or none; at most 1 000. See [`JobService::enqueue_all`] for what each store takes.
///
/// # Errors
/// If the store cannot be opened, or as [`JobService::enqueue_all`].
pub async fn enqueue_all<R>(new: Vec<NewJob<R>>) -> Result<Vec<Receipt>> {
    jobs().await?.enqueue_all(new).await.map_err(QueueError::job)
}

/// Cancels the pending jobs of a queue and returns how many. Running, scheduled and waiting jobs stay.
///
/// # Errors
/// If the name is not allowed or the store fails.
pub async fn purge_queue(queue: &str) -> Result<u64> {
    let queue = QueueName::new(queue).map_err(QueueError::name)?;
    jobs().await?.purge_queue(&queue).await.map_err(QueueError::job)
}

/// How a job ended, or where it stands. Does not wait; [`JobHandle::result`] does.
///
/// # Errors
/// If there is no such job, it keeps no result, or the store fails.
pub async fn fetch_job_result(id: &str) -> Result<ResultState> {
    let id = JobId::new(id).map_err(QueueError::name)?;
    jobs().await?.result(&id).await.map_err(QueueError::job)
}

/// The live workers of the store, by id.
///
/// # Errors
/// If the store cannot be opened or read.
pub async fn list_workers() -> Result<Vec<WorkerInfo>> {
    let registry = service::<WorkerRegistry>().await?;
    registry.list().await.map_err(QueueError::storage)
}
