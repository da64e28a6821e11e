//! The consumer side of naq: workers, handlers, leases, the scheduler loop.
//!
//! Invariant: knows the storage seam and nothing of what is behind it; never depends on naq-queue.

pub mod handler;

pub use handler::{ErasedHandler, HandlerRegistry};
