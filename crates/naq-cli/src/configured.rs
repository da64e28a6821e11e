//! From the configuration to what a worker is built of.
//!
//! Invariant: the one place where a worker's settings are read; each key of `workers`, `scheduler`, `queues` and `jobs`
//! that a worker obeys stands here once.

use std::time::Duration;

use naq_config::NaqConfig;
use naq_models::{QueueName, WireFormat};
use naq_worker::{QueueSpec, SchedulerOptions, WorkerOptions};

/// How a worker behaves.
pub(crate) fn worker_options(config: &NaqConfig, format: WireFormat) -> WorkerOptions {
    WorkerOptions {
        lease: config.queues.ack_wait,
        heartbeat_interval: config.workers.heartbeat_interval,
        ttl: config.workers.ttl,
        shutdown_timeout: config.workers.shutdown_timeout,
        max_job_duration: Some(config.workers.max_job_duration),
        max_crashes: config.jobs.max_crashes,
        wire_format: format,
        scheduler: config.scheduler.enabled.then(|| scheduler_options(config)),
        ..WorkerOptions::default()
    }
}

/// How the scheduler behaves.
pub(crate) fn scheduler_options(config: &NaqConfig) -> SchedulerOptions {
    SchedulerOptions {
        lock_ttl: config.scheduler.lock_ttl,
        lock_renew_interval: config.scheduler.lock_renew_interval,
        scan_interval: config.scheduler.scan_interval,
        sweep_interval: config.results.cleanup_interval.max(Duration::from_secs(1)),
    }
}

/// Queues with what the configuration says of each; the default queue if none is named.
pub(crate) fn queue_specs(config: &NaqConfig, mut specs: Vec<QueueSpec>) -> Vec<QueueSpec> {
    if specs.is_empty() {
        specs.push(QueueSpec::new(config.queues.default.clone()));
    }
    for spec in &mut specs {
        spec.lease = Some(config.queues.ack_wait_of(&spec.name));
        spec.max_ack_pending = Some(config.queues.max_ack_pending_of(&spec.name));
    }
    specs
}

/// The names, for messages.
pub(crate) fn names(specs: &[QueueSpec]) -> String {
    specs.iter().map(|spec| &spec.name).map(QueueName::as_str).collect::<Vec<_>>().join(", ")
}
