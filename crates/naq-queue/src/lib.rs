//! The producer side of naq: queues, enqueueing, job handles.
//!
//! Invariant: knows the services and nothing of what is behind them; never depends on naq-worker. The free functions go
//! over one process-wide connection, which lives on a runtime of its own: it outlives the runtime of whoever used it
//! first, and serves plain threads too.
//!
//! ```no_run
//! # use naq_queue::{NewJob, enqueue};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let job = enqueue(NewJob::new("naq.echo", serde_json::json!({"hello": "world"}))).await?;
//! println!("{}", job.result().await?);
//! # Ok(()) }
//! ```

mod background;
#[cfg(feature = "nats")]
pub mod connection;
mod error;
mod process;
mod queue;
pub mod scheduled;
mod sync;

pub use background::run_async_from_sync;
pub use error::{QueueError, QueueErrorKind};
pub use naq_models::Schedule;
pub use naq_services::{
    JobHandle, NewJob, Receipt, ResultError, ResultErrorKind,
    jobs::{QueueReport, ResultState},
};
pub use process::{
    connect, disconnect, enqueue, enqueue_all, enqueue_at, enqueue_in, enqueue_many, fetch_job_result, install,
    list_workers, purge_queue,
};
pub use queue::Queue;
pub use scheduled::{
    cancel_scheduled_job, cancel_scheduled_job_sync, get_scheduled_job, get_scheduled_job_sync, list_scheduled_jobs,
    list_scheduled_jobs_sync, modify_scheduled_job, modify_scheduled_job_sync, pause_scheduled_job,
    pause_scheduled_job_sync, resume_scheduled_job, resume_scheduled_job_sync, schedule, schedule_sync,
    trigger_scheduled_job, trigger_scheduled_job_sync,
};
pub use sync::{
    connect_sync, disconnect_sync, enqueue_all_sync, enqueue_at_sync, enqueue_in_sync, enqueue_many_sync, enqueue_sync,
    fetch_job_result_sync, install_sync, list_workers_sync, purge_queue_sync, wait_for_result_sync,
};

/// The result of a call of this crate.
pub type Result<T, E = QueueError> = std::result::Result<T, E>;
