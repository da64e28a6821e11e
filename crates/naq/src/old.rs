//! The modules of NAQ that gather names of several of naq's crates.

/// Events, and who listens to them.
pub mod events {
    pub use naq_models::{
        Event, Event as JobEvent, Event as WorkerEvent, EventFilter, EventType, EventType as JobEventType,
        EventType as WorkerEventType,
    };
    pub use naq_services::events::{
        EventLogger, EventLogger as AsyncJobEventLogger, EventLogger as JobEventLogger, EventProcessor,
        EventProcessor as AsyncJobEventProcessor, EventService,
    };
}

/// The connection to NATS.
#[cfg(all(feature = "nats", feature = "queue"))]
pub mod connection {
    pub use naq_queue::{
        connection::{get_jetstream_context, get_nats_connection},
        disconnect as close_nats_connection,
    };
}

/// Results of jobs.
pub mod results {
    pub use naq_models::JobResult;
    #[cfg(feature = "queue")]
    pub use naq_queue::{fetch_job_result, fetch_job_result_sync};
    pub use naq_services::{JobService as Results, jobs::ResultState};
}

/// The loop that fires what is due.
#[cfg(feature = "worker")]
pub mod scheduler {
    pub use naq_worker::{Scheduler, SchedulerError, SchedulerOptions};
}

/// Defaults and states.
pub mod settings {
    pub use naq_config::DEFAULT_NATS_URL;
    pub use naq_models::{JobStatus as JOB_STATUS, ScheduleStatus as SCHEDULED_JOB_STATUS, id::DEFAULT_QUEUE_NAME};
    pub use naq_services::workers::WorkerStatus as WORKER_STATUS;
}

/// What NAQ's exceptions are. Rust has no hierarchy of errors: each call has its own type, with a `kind()`;
/// `NaqException` is what each of them converts into.
pub mod exceptions {
    pub use naq_config::ConfigError as ConfigurationError;
    pub use naq_models::{DecodeError as SerializationError, JobError as JobExecutionError};
    pub use naq_services::{
        Failure as NaqException, JobServiceError as JobNotFoundError, ServiceError as NaqConnectionError, StorageError,
        StorageError as NotFoundError,
    };
}

/// Patterns that handlers and services repeat.
pub mod utils {
    pub use naq_models::{WireFormat as SerializationHelper, wire::encode as serialize_with_metadata};
    #[cfg(feature = "queue")]
    pub use naq_queue::run_async_from_sync;
    pub use naq_services::patterns::{
        ErrorHandler, error_context, gather_with_concurrency, log_errors, managed_resource, retry, retry_async,
        run_in_thread, timeout_context, timing, wrap_naq_exception,
    };
    #[cfg(feature = "logging")]
    pub use naq_telemetry::logging::{
        TaskLogger as StructuredLogger, configure as setup_logging, configure_structured as setup_structured_logging,
    };
}

/// The command line.
#[cfg(feature = "cli")]
pub mod cli {
    pub use naq_cli::run as main;
    pub use naq_cli::*;
}
