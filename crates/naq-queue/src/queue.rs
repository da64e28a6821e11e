//! [`Queue`]: one queue of a store, as a producer sees it.
//!
//! Invariant: every job that is enqueued through it goes to its queue, whatever the job's own default is.

use std::time::Duration;

use naq_models::{QueueName, Timestamp};
use naq_services::{JobHandle, JobService, NewJob, Receipt, ServiceManager, jobs::QueueReport};

use crate::{QueueError, Result, process};

/// One queue. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Queue {
    name: QueueName,
    jobs: JobService,
    /// Services that were opened for this queue alone.
    own: Option<ServiceManager>,
}

impl Queue {
    /// A queue over the process-wide connection, which is opened if it is not open.
    ///
    /// # Errors
    /// If the name is not allowed, the configuration is wrong, or the store cannot be opened.
    pub async fn open(name: &str) -> Result<Self> {
        Ok(Self { name: queue_name(name)?, jobs: process::jobs().await?, own: None })
    }

    /// A queue over a connection of its own, which lives on the caller's runtime. [`close`](Self::close) closes it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn connect(name: &str, url: &str) -> Result<Self> {
        let name = queue_name(name)?;
        let manager = process::manager_of_process(Some(url))?;
        let jobs = manager.jobs().await.map_err(QueueError::service)?;
        Ok(Self { name, jobs, own: Some(manager) })
    }

    /// A queue over the services of a program that has its own.
    #[must_use]
    pub fn of(name: QueueName, jobs: JobService) -> Self {
        Self { name, jobs, own: None }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &QueueName {
        &self.name
    }

    /// Everything else that can be done to jobs.
    #[must_use]
    pub fn jobs(&self) -> &JobService {
        &self.jobs
    }

    /// Stores a job durably in this queue.
    ///
    /// # Errors
    /// If the job is not valid or too large, or the store fails.
    pub async fn enqueue<R>(&self, job: NewJob<R>) -> Result<JobHandle<R>> {
        self.jobs.enqueue(job.queue(&self.name)).await.map_err(QueueError::job)
    }

    /// Stores a job that runs no earlier than `time`.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub async fn enqueue_at<R>(&self, time: Timestamp, job: NewJob<R>) -> Result<JobHandle<R>> {
        self.enqueue(job.at(time)).await
    }

    /// Stores a job that runs no earlier than `delay` from now.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub async fn enqueue_in<R>(&self, delay: Duration, job: NewJob<R>) -> Result<JobHandle<R>> {
        self.enqueue(job.delay(delay)).await
    }

    /// Stores many jobs, in batches. One outcome per job, in order.
    pub async fn enqueue_many<R>(&self, jobs: Vec<NewJob<R>>) -> Vec<Result<Receipt>> {
        let jobs = jobs.into_iter().map(|job| job.queue(&self.name)).collect();
        let outcomes = self.jobs.enqueue_many(jobs).await;
        outcomes.into_iter().map(|outcome| outcome.map_err(QueueError::job)).collect()
    }

    /// Stores all of these jobs in this queue, or none; at most 1 000.
    ///
    /// # Errors
    /// As [`JobService::enqueue_all`].
    pub async fn enqueue_all<R>(&self, jobs: Vec<NewJob<R>>) -> Result<Vec<Receipt>> {
        let jobs = jobs.into_iter().map(|job| job.queue(&self.name)).collect();
        self.jobs.enqueue_all(jobs).await.map_err(QueueError::job)
    }

    /// Cancels its pending jobs and returns how many. Running, scheduled and waiting jobs stay.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn purge(&self) -> Result<u64> {
        self.jobs.purge_queue(&self.name).await.map_err(QueueError::job)
    }

    /// Its numbers.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn stats(&self) -> Result<QueueReport> {
        self.jobs.queue(&self.name).await.map_err(QueueError::job)
    }

    /// Closes the connection, if it is this queue's own; clones are closed with it.
    pub async fn close(&self) {
        if let Some(own) = &self.own {
            own.close().await;
        }
    }
}

fn queue_name(name: &str) -> Result<QueueName> {
    QueueName::new(name).map_err(QueueError::name)
}
