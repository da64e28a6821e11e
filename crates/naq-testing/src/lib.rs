//! The public test kit of naq: a store in memory, draining it, and asking what was enqueued.
//!
//! Invariant: real execution. Jobs lie in the same store and are run by the same worker as in production, only in
//! memory and until nothing is left to do; nothing is mocked.
//!
//! Not here: a clock that can be moved; what is scheduled for later stays scheduled.
//!
//! ```
//! use naq_services::NewJob;
//! use naq_testing::{TestStore, assert_enqueued, refute_enqueued};
//! use serde_json::json;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let store = TestStore::memory().await?;
//! let job = store.jobs().enqueue(NewJob::new("double", json!([21])).returning::<u32>()).await?;
//! assert_enqueued!(store, "double", args = json!([21]));
//!
//! let double = |args: (u32,)| async move { args.0 * 2 };
//! let counts = store.drain(|worker| worker.handler("double", double)).await?;
//! assert_eq!(counts.completed, 1);
//! assert_eq!(job.result().await?, 42);
//! refute_enqueued!(store, "double");
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod drain;
mod expected;
mod store;

pub use drain::{DRAIN_LIMIT, DrainError};
pub use expected::Expected;
pub use store::TestStore;
