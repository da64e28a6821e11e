//! The storage seam of naq, its NATS and SQLite implementations, and the services above it.
//!
//! Invariant: the only crate that names the NATS client or SQLite, and no public item shows either. Backends store state
//! and claim atomically; what a job's next state is, is decided above the seam, once for all of them.
//!
//! Not here: running handlers (naq-worker), reading configuration files (naq-config), printing.

pub mod args;
#[cfg(feature = "bench")]
pub mod bare;
mod call_error;
#[cfg(feature = "nats")]
pub mod connection;
pub mod context;
pub mod events;
pub mod failure;
pub mod foreign;
pub mod handle;
mod host_clock;
pub mod jobs;
#[cfg(feature = "nats")]
pub mod kv_stores;
pub mod manager;
pub mod migration;
pub mod new_job;
pub mod open;
pub mod outcome;
pub mod patterns;
pub mod progress;
pub mod registration;
pub mod request_reply;
pub mod scheduler;
pub mod storage;
#[cfg(feature = "nats")]
pub mod streams;
pub mod trace_context;
pub mod workers;

pub use call_error::CallError;
pub use context::{CancellationToken, FromContext, JobContext, State, States};
pub use events::{EventHook, EventProcessor, EventService, EventSink, Measurement};
pub use failure::{Failure, IntoFailure, JobFailure};
pub use handle::{JobHandle, ResultError, ResultErrorKind};
pub use jobs::{JobService, JobServiceError, JobServiceErrorKind, JobSettings, Receipt};
pub use manager::{Service, ServiceError, ServiceErrorKind, ServiceManager, StorageService};
pub use new_job::{JobDefaults, NewJob, NewJobError, UniqueBy};
pub use open::open_storage;
pub use outcome::{JobReturn, Outcome};
pub use progress::{ProgressSlot, ProgressStream};
#[doc(hidden)]
pub use registration::private as __private;
pub use request_reply::{RequestError, RequestErrorKind, RequestReply};
pub use scheduler::{SchedulerService, SchedulerServiceError, SchedulerServiceErrorKind};
pub use storage::{Storage, StorageError, StorageErrorKind};
pub use workers::{WorkerInfo, WorkerRegistry};
