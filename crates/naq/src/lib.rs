//! naq: a background job queue on one SQLite file or a NATS JetStream cluster.
//!
//! Invariant: no logic. This crate gives the crates below one name, each behind a cargo feature, so that a web process
//! that only enqueues compiles neither the worker nor a backend it does not use.
//!
//! ```
//! # #[cfg(all(feature = "macros", feature = "queue"))] mod example {
//! use naq::secs;
//!
//! #[naq::job(queue = "mail", max_retries = 5, timeout = "30s")]
//! async fn send_mail(to: String, subject: String) -> Result<usize, std::io::Error> {
//!     println!("{subject} goes to {to}");
//!     Ok(subject.len())
//! }
//!
//! async fn greet() -> Result<(), Box<dyn std::error::Error>> {
//!     send_mail("a@b.c".into(), "hi".into()).await?; // stays callable as written
//!     let job = naq::enqueue(send_mail::job("a@b.c", "hi").delay(secs(5))).await?;
//!     let sent: usize = job.result().await?; // pushed, not polled
//!     assert_eq!(sent, 2);
//!     Ok(())
//! }
//! # }
//! ```

#[cfg(doctest)]
mod guide;

#[cfg(feature = "cli")]
pub use naq_cli as cli;
pub use naq_config as config;
pub use naq_config::{NaqConfig, StoreUrl};
#[cfg(feature = "macros")]
pub use naq_macros::job;
pub use naq_models as models;
pub use naq_models::{
    Job, JobError, JobId, JobResult, JobStatus, OnConflict, Priority, QueueName, RawJson, RetryPolicy, RetryStrategy,
    Schedule, ScheduleId, Timestamp, UniqueWhile,
};
#[cfg(feature = "queue")]
pub use naq_queue as queue;
#[cfg(feature = "queue")]
pub use naq_queue::{
    Queue, QueueError, QueueErrorKind, cancel_scheduled_job, cancel_scheduled_job_sync, connect, connect_sync,
    disconnect, disconnect_sync, enqueue, enqueue_at, enqueue_at_sync, enqueue_in, enqueue_in_sync, enqueue_many,
    enqueue_many_sync, enqueue_sync, fetch_job_result, fetch_job_result_sync, get_scheduled_job,
    get_scheduled_job_sync, list_scheduled_jobs, list_scheduled_jobs_sync, modify_scheduled_job,
    modify_scheduled_job_sync, pause_scheduled_job, pause_scheduled_job_sync, purge_queue, purge_queue_sync,
    resume_scheduled_job, resume_scheduled_job_sync, schedule, schedule_sync, trigger_scheduled_job,
    trigger_scheduled_job_sync, wait_for_result_sync,
};
pub use naq_services as services;
#[doc(hidden)]
pub use naq_services::__private;
pub use naq_services::{
    CancellationToken, Failure, FromContext, IntoFailure, JobContext, JobFailure, JobHandle, JobService,
    JobServiceError, JobServiceErrorKind, NewJob, Outcome, Receipt, ResultError, ResultErrorKind, SchedulerService,
    SchedulerServiceError, SchedulerServiceErrorKind, ServiceManager, State,
    new_job::{UniqueBy, secs},
};
#[cfg(feature = "logging")]
pub use naq_telemetry::logging;
#[cfg(feature = "otel")]
pub use naq_telemetry::otel;
#[cfg(feature = "metrics")]
pub use naq_telemetry::{http, metrics};
#[cfg(feature = "testing")]
pub use naq_testing as testing;
#[cfg(feature = "worker")]
pub use naq_worker as worker;
#[cfg(feature = "worker")]
pub use naq_worker::{
    QueueSpec, Scheduler, Shutdown, Worker, WorkerBuilder, WorkerInfo, WorkerOptions, WorkerReport, list_workers,
};
