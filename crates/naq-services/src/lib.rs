//! The storage seam of naq, its NATS and SQLite implementations, and the services above it.
//!
//! Invariant: the only crate that names the NATS client or SQLite, and no public item shows either. Backends store state
//! and claim atomically; what a job's next state is, is decided above the seam, once for all of them.
//!
//! Not here: running handlers (naq-worker), reading configuration files (naq-config), printing.

#[cfg(feature = "nats")]
pub mod connection;
pub mod context;
#[cfg(feature = "nats")]
pub mod kv_stores;
pub mod storage;
#[cfg(feature = "nats")]
pub mod streams;

pub use context::{CancellationToken, JobContext, State};
pub use storage::{Storage, StorageError, StorageErrorKind};
