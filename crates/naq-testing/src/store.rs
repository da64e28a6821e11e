//! [`TestStore`]: a store in memory and everything around it.
//!
//! Invariant: each one is a store of its own; tests do not see each other. The time of one that the kit has opened is
//! moved by the test alone.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use naq_config::NaqConfig;
use naq_models::{Job, JobStatus, Timestamp, wire};
use naq_queue::QueueError;
use naq_services::{
    JobService, SchedulerService, ServiceError, ServiceManager,
    open::open_virtual,
    storage::{ListFilter, SharedStorage, Sighting, VirtualClock},
};

/// Jobs read from the store at once.
const PAGE: usize = 500;

/// A store in memory, with its services. It is gone when the last of them is dropped.
#[derive(Debug, Clone)]
pub struct TestStore {
    manager: ServiceManager,
    jobs: JobService,
    clock: Option<VirtualClock>,
}

impl TestStore {
    /// An empty store, with the default configuration. Its time stands at that of the host until it is moved:
    /// [`clock`](Self::clock).
    ///
    /// # Errors
    /// If the system gives no threads.
    pub async fn memory() -> Result<Self, ServiceError> {
        Self::opened(None, NaqConfig::default()).await
    }

    /// The same with another time to begin with, so that a test knows it: the night in which clocks are changed, a leap
    /// day.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub async fn starting_at(start: Timestamp) -> Result<Self, ServiceError> {
        Self::opened(Some(start), NaqConfig::default()).await
    }

    /// The same with a configuration of one's own; its store is not used.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub async fn configured(config: NaqConfig, start: Option<Timestamp>) -> Result<Self, ServiceError> {
        Self::opened(start, config).await
    }

    async fn opened(start: Option<Timestamp>, config: NaqConfig) -> Result<Self, ServiceError> {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let name = format!("naq-testing-{}", STORES.fetch_add(1, Ordering::Relaxed));
        // Held until the services have found it under its name.
        let _opened =
            open_virtual(&name, start, &config).await.map_err(|error| ServiceError::new("store in memory", error))?;
        let url = format!("memory://{name}").parse().expect("a name of letters, digits and dashes is a store's");
        Self::of(ServiceManager::new(Arc::new(config), url)).await
    }

    /// The kit over other services, for example on a real store. Its time passes by itself, and cannot be moved.
    ///
    /// # Errors
    /// If the store cannot be opened.
    pub async fn of(manager: ServiceManager) -> Result<Self, ServiceError> {
        let jobs = manager.jobs().await?;
        let clock = jobs.storage().virtual_clock();
        Ok(Self { manager, jobs, clock })
    }

    /// Enqueues, looks, waits, cancels.
    #[must_use]
    pub fn jobs(&self) -> &JobService {
        &self.jobs
    }

    /// Recurring jobs: defines, changes, triggers, looks.
    #[must_use]
    pub fn scheduler(&self) -> SchedulerService {
        SchedulerService::new(self.jobs.clone())
    }

    /// The store's clock. It stands still until the test moves it.
    ///
    /// # Panics
    /// If the kit has not opened the store itself ([`of`](Self::of)).
    #[must_use]
    pub fn clock(&self) -> &VirtualClock {
        self.clock.as_ref().expect("the clock of a store that the kit has not opened cannot be moved")
    }

    /// The store itself.
    #[must_use]
    pub fn storage(&self) -> &SharedStorage {
        self.jobs.storage()
    }

    /// All services, for programs that take them.
    #[must_use]
    pub fn manager(&self) -> &ServiceManager {
        &self.manager
    }

    /// Lets `naq::enqueue` and the other free functions go to this store. They are the process's: tests that use them
    /// must not run at the same time in one process.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub async fn install(&self) -> Result<(), QueueError> {
        naq_queue::install(self.manager.clone()).await
    }

    /// The jobs that have not ended, in no particular order: pending, running, scheduled, waiting, between two attempts.
    ///
    /// # Panics
    /// If the store fails or holds what is not a job.
    pub async fn enqueued(&self) -> Vec<Job> {
        use JobStatus::{Pending, Retry, Running, Scheduled, Waiting};
        let statuses = vec![Pending, Running, Scheduled, Waiting, Retry];
        let mut filter = ListFilter { queue: None, statuses, limit: PAGE, cursor: None };
        let mut jobs = Vec::new();
        loop {
            let page = self.storage().list(&filter).await.expect("the test's store can be read");
            for sighting in page.items {
                let (address, body) = match sighting {
                    Sighting::Queued { address, body, .. } => (address, body),
                    Sighting::Scheduled(entry) => (entry.address, entry.body),
                    Sighting::Dead(_) | Sighting::Ended(_) => continue,
                };
                jobs.push(wire::decode(&body, &address).expect("what lies in the test's store is a job"));
            }
            filter.cursor = page.next;
            if filter.cursor.is_none() {
                return jobs;
            }
        }
    }
}
