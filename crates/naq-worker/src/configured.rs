//! From a configuration to what a worker is told, and from a program's services to a worker over them.
//!
//! Invariant: each key of `workers`, `scheduler`, `queues` and `jobs` that a worker obeys is read here, once. Files and
//! variables are naq-config's.

use std::{sync::Arc, time::Duration};

use naq_config::NaqConfig;
use naq_services::{JobSettings, ServiceError, ServiceManager};

use crate::{QueueSpec, SchedulerOptions, Worker, WorkerBuilder, WorkerOptions};

impl WorkerOptions {
    /// What a configuration says of workers.
    #[must_use]
    pub fn of(config: &NaqConfig) -> Self {
        Self {
            lease: config.queues.ack_wait,
            heartbeat_interval: config.workers.heartbeat_interval,
            ttl: config.workers.ttl,
            shutdown_timeout: config.workers.shutdown_timeout,
            max_job_duration: Some(config.workers.max_job_duration),
            max_crashes: config.jobs.max_crashes,
            wire_format: JobSettings::from(config).format,
            scheduler: config.scheduler.enabled.then(|| SchedulerOptions::of(config)),
            ..Self::default()
        }
    }
}

impl SchedulerOptions {
    /// What a configuration says of the scheduler.
    #[must_use]
    pub fn of(config: &NaqConfig) -> Self {
        Self {
            lock_ttl: config.scheduler.lock_ttl,
            lock_renew_interval: config.scheduler.lock_renew_interval,
            scan_interval: config.scheduler.scan_interval,
            sweep_interval: config.results.cleanup_interval.max(Duration::from_secs(1)),
        }
    }
}

impl QueueSpec {
    /// The same queue with what a configuration says of it, where nothing was said before.
    #[must_use]
    pub fn configured(self, config: &NaqConfig) -> Self {
        Self {
            lease: self.lease.or_else(|| Some(config.queues.ack_wait_of(&self.name))),
            max_ack_pending: self.max_ack_pending.or_else(|| Some(config.queues.max_ack_pending_of(&self.name))),
            paused: self.paused || config.queues.paused().any(|paused| *paused == self.name),
            ..self
        }
    }
}

impl Worker {
    /// A worker over the services of a program: their store, their configuration, their events, and their [`JobService`] for
    /// what handlers enqueue. What the configuration says of queues holds for those that are added, and its
    /// `queues.default` is served if none is. Opens the store if it is not open; the services stay the caller's to close.
    ///
    /// ```
    /// # use naq_config::NaqConfig;
    /// # use naq_services::{NewJob, ServiceManager};
    /// # use naq_worker::Worker;
    /// # use std::sync::Arc;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let services = ServiceManager::new(Arc::new(NaqConfig::default()), "memory://doc".parse()?);
    /// let worker = Worker::of(&services).await?.handler("double", async |n: (u32,)| n.0 * 2).build()?;
    /// let job = services.jobs().await?.enqueue(NewJob::new("double", (21,)).returning::<u32>()).await?;
    /// let (doubled, report) = worker.run_until(job.result()).await?;
    /// assert_eq!((doubled?, report.completed), (42, 1));
    /// # services.close().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the store cannot be opened.
    ///
    /// [`JobService`]: naq_services::JobService
    pub async fn of(services: &ServiceManager) -> Result<WorkerBuilder, ServiceError> {
        let (jobs, config) = (services.jobs().await?, services.config());
        Ok(Self::builder(jobs.storage().clone())
            .configuration(Arc::clone(config))
            .concurrency(config.workers.concurrency as usize)
            .options(WorkerOptions::of(config))
            .events(jobs.events().clone())
            .state(jobs))
    }
}

#[cfg(test)]
mod tests {
    use naq_config::QueueConfig;

    use super::*;
    use crate::{BuildError, options::QueueSpecError};

    fn services(config: NaqConfig, store: &str) -> ServiceManager {
        ServiceManager::new(Arc::new(config), format!("memory://configured-{store}").parse().unwrap())
    }

    /// Catches: a lease, limit or pause that is said in the configuration and not obeyed, or that wins over the code.
    #[tokio::test]
    async fn queues_are_as_the_configuration_says_where_the_code_says_nothing() {
        let mut config = NaqConfig::default();
        config.queues.ack_wait = Duration::from_secs(20);
        config.queues.max_ack_pending = 40;
        let mail = QueueConfig { ack_wait: Some(Duration::from_secs(5)), max_ack_pending: Some(2), paused: true };
        config.queues.configs.insert("mail".parse().unwrap(), mail);
        config.workers.shutdown_timeout = Duration::from_secs(3);
        config.scheduler.enabled = false;
        let services = services(config, "queues");
        let own = QueueSpec { lease: Some(Duration::from_secs(2)), ..QueueSpec::new("own".parse().unwrap()) };
        let builder = Worker::of(&services).await.unwrap().queue("mail:3").queue("default").queue(own);
        let worker = builder.build().unwrap();

        let told = worker.queues.iter().map(|queue| {
            let lease = queue.lease.map(|lease| lease.as_secs());
            (queue.name.as_str(), queue.weight.map(|weight| weight.get()), lease, queue.max_ack_pending, queue.paused)
        });
        let expected = [
            ("mail", Some(3), Some(5), Some(2), true),
            ("default", None, Some(20), Some(40), false),
            ("own", None, Some(2), Some(40), false),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!(worker.options.shutdown_timeout, Duration::from_secs(3));
        assert!(worker.options.scheduler.is_none());
        services.close().await;
    }

    /// Catches: text that is no queue and that a worker ignores, or that is told as another mistake.
    #[tokio::test]
    async fn text_that_is_no_queue_is_refused_when_the_worker_is_built() {
        let services = services(NaqConfig::default(), "text");
        let built = |builder: WorkerBuilder| builder.queue("mail").build().map(drop);
        let name = built(Worker::of(&services).await.unwrap().queue("a b"));
        assert!(matches!(name, Err(BuildError::Queue(QueueSpecError::Name(_)))), "{name:?}");
        let first = built(Worker::of(&services).await.unwrap().queue("mail:0").queue("a b"));
        assert!(matches!(first, Err(BuildError::Queue(QueueSpecError::Weight { .. }))), "{first:?}");
        services.close().await;
    }
}
