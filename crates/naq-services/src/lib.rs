//! The storage seam of naq, its NATS and SQLite implementations, and the services above it.
//!
//! Invariant: the only crate that names the NATS client or SQLite, and no public item shows either. Backends store state
//! and claim atomically; what a job's next state is, is decided above the seam, once for all of them.
//!
//! Not here: running handlers (naq-worker), reading configuration files (naq-config), printing.

pub mod args;
pub mod context;
pub mod failure;
pub mod new_job;
pub mod outcome;
pub mod registration;
pub mod storage;

pub use context::{CancellationToken, FromContext, JobContext, State, States};
pub use failure::{Failure, IntoFailure, JobFailure};
pub use new_job::{JobDefaults, NewJob, NewJobError};
pub use outcome::{JobReturn, Outcome};
#[doc(hidden)]
pub use registration::private as __private;
pub use storage::{Storage, StorageError, StorageErrorKind};
