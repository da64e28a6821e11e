//! naq: a background job queue on one SQLite file or a NATS JetStream cluster.
//!
//! Invariant: no logic. This crate gives the crates below one name, each behind a cargo feature, so that a web process
//! that only enqueues compiles neither the worker nor a backend it does not use.
//!
//! Names and module paths of NAQ and OmniQ (`naq::models::enums::JOB_STATUS`, `naq::NaqException`) are the same items under
//! a second name; `tests/paths.rs` lists them.
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

pub mod config;
#[cfg(doctest)]
mod guide;
pub mod models;
mod old;
#[cfg(feature = "queue")]
pub mod queue;
pub mod services;
#[cfg(feature = "worker")]
pub mod worker;

pub use naq_config::{DEFAULT_NATS_URL, NaqConfig, StoreUrl, get_config, load_config};
#[cfg(feature = "macros")]
pub use naq_macros::job;
pub use naq_models::{
    Event, EventType, Job, JobError, JobId, JobResult, JobStatus, OnConflict, Priority, QueueName, RawJson,
    RetryPolicy, RetryStrategy, Schedule, ScheduleId, Timestamp, UniqueWhile, id::DEFAULT_QUEUE_NAME,
};
#[cfg(feature = "queue")]
pub use naq_queue::{
    Queue, QueueError, QueueErrorKind, cancel_scheduled_job, cancel_scheduled_job_sync, connect, connect_sync,
    disconnect, disconnect_sync, enqueue, enqueue_all, enqueue_all_sync, enqueue_at, enqueue_at_sync, enqueue_in,
    enqueue_in_sync, enqueue_many, enqueue_many_sync, enqueue_sync, fetch_job_result, fetch_job_result_sync,
    get_scheduled_job, get_scheduled_job_sync, install, install_sync, list_scheduled_jobs, list_scheduled_jobs_sync,
    list_workers, list_workers_sync, modify_scheduled_job, modify_scheduled_job_sync, pause_scheduled_job,
    pause_scheduled_job_sync, purge_queue, purge_queue_sync, resume_scheduled_job, resume_scheduled_job_sync,
    run_async_from_sync, schedule, schedule_sync, trigger_scheduled_job, trigger_scheduled_job_sync,
    wait_for_result_sync,
};
#[doc(hidden)]
pub use naq_services::__private;
pub use naq_services::{
    CancellationToken, Failure, FromContext, IntoFailure, JobContext, JobFailure, JobHandle, JobService,
    JobServiceError, JobServiceErrorKind, NewJob, Outcome, Receipt, ResultError, ResultErrorKind, SchedulerService,
    SchedulerServiceError, SchedulerServiceErrorKind, ServiceManager, State, WorkerInfo,
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
pub use naq_worker::{QueueSpec, Scheduler, Shutdown, Worker, WorkerBuilder, WorkerOptions, WorkerReport};
#[cfg(feature = "cli")]
pub use old::cli;
#[cfg(all(feature = "nats", feature = "queue"))]
pub use old::connection;
#[cfg(feature = "worker")]
pub use old::scheduler;
pub use old::{events, exceptions, results, settings, utils};

// NAQ's and OmniQ's names for what has another one here.
#[doc(no_inline)]
pub use self::models::{JobEvent, JobEventType, RetryDelayType, WorkerEvent, WorkerEventType};
#[cfg(feature = "queue")]
#[doc(no_inline)]
pub use self::queue::{AsyncTaskQueue, close_sync_connections};
#[cfg(all(feature = "nats", feature = "queue"))]
#[doc(no_inline)]
pub use old::connection::{close_nats_connection, get_jetstream_context, get_nats_connection};
#[doc(no_inline)]
pub use old::{
    exceptions::{
        ConfigurationError, JobExecutionError, JobNotFoundError, NaqConnectionError, NaqException, SerializationError,
    },
    results::Results,
    settings::{JOB_STATUS, SCHEDULED_JOB_STATUS, WORKER_STATUS},
};
