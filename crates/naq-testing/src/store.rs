//! [`TestStore`]: a store in memory and everything around it.
//!
//! Invariant: each one is a store of its own; tests do not see each other.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use naq_models::{Job, JobStatus, wire};
use naq_queue::QueueError;
use naq_services::{
    JobService, ServiceError, ServiceManager,
    storage::{ListFilter, SharedStorage, Sighting},
};

/// Jobs read from the store at once.
const PAGE: usize = 500;

/// A store in memory, with its services. It is gone when the last of them is dropped.
#[derive(Debug, Clone)]
pub struct TestStore {
    manager: ServiceManager,
    jobs: JobService,
}

impl TestStore {
    /// An empty store, with the default configuration.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub async fn memory() -> Result<Self, ServiceError> {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let name = format!("memory://naq-testing-{}", STORES.fetch_add(1, Ordering::Relaxed));
        let url = name.parse().expect("a name of letters, digits and dashes is a store's");
        Self::of(ServiceManager::new(Arc::default(), url)).await
    }

    /// The kit over other services, for example with a configuration of one's own or on a real store.
    ///
    /// # Errors
    /// If the store cannot be opened.
    pub async fn of(manager: ServiceManager) -> Result<Self, ServiceError> {
        let jobs = manager.jobs().await?;
        Ok(Self { manager, jobs })
    }

    /// Enqueues, looks, waits, cancels.
    #[must_use]
    pub fn jobs(&self) -> &JobService {
        &self.jobs
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
