//! The consumer side of naq: workers, handlers, leases, the scheduler loop.
//!
//! Invariant: knows the storage seam and nothing of what is behind it; never depends on naq-queue.

pub mod builtin;
pub mod handler;

pub use handler::{ErasedHandler, HandlerRegistry};
#[doc(hidden)]
pub use naq_services::__private;
