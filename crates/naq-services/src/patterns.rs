//! Small patterns that handlers and services repeat: trying again, saying what failed and how long it took, bounded
//! concurrency, a resource that is always released.
//!
//! Invariant: thin. Each is a few lines over what naq, tokio or tracing already does, so that there is one way to do it;
//! a call that is retried here follows the same [`RetryPolicy`](naq_models::RetryPolicy) as a job.

mod concurrency;
mod error_handler;
mod observed;
mod resource;
mod retry;

pub use concurrency::{gather_with_concurrency, run_in_thread};
pub use error_handler::{COUNTED_CONTEXTS_MAX, ErrorHandler, wrap_naq_exception};
pub use observed::{OperationError, Timing, error_context, log_errors, timing};
pub use resource::managed_resource;
pub use retry::{retry, retry_async};
pub use tokio::time::timeout as timeout_context;
