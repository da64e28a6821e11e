//! The public test kit of naq: a store in memory, draining it, asking what was enqueued, and a clock that the test moves.
//!
//! Invariant: real execution. Jobs lie in the same store, are fired by the same scheduler and run by the same worker as in
//! production, only in memory and until nothing is left to do; nothing is mocked.
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
//!
//! # Time
//! The time of a [`TestStore`] stands still until the test moves it, so nothing has to sleep:
//! - [`TestStore::drain`] runs what is due *now*. A delayed job or a retry whose time has not come stays.
//! - [`VirtualClock::advance`] and [`VirtualClock::advance_to`] move the time at once and run nothing. A `drain` after
//!   that is what a scheduler finds that was away meanwhile: a recurring job runs as its policy for missed runs says.
//! - [`TestStore::drain_for`] lives through a span: what becomes due on the way runs at exactly its own time, each run of
//!   a recurring job and each retry.
//!
//! ```
//! use std::time::Duration;
//! use naq_models::{Schedule, Timestamp};
//! use naq_services::{Failure, JobContext, NewJob, new_job::secs};
//! use naq_testing::{TestStore, assert_enqueued};
//! use serde_json::json;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let store = TestStore::starting_at("2026-11-20T12:00:00Z".parse()?).await?;
//! let day = Duration::from_secs(24 * 3600);
//!
//! // A job that is delayed by a day runs when a day has passed.
//! let remind = |worker: naq_worker::WorkerBuilder| worker.handler("remind", || async {});
//! store.jobs().enqueue(NewJob::new("remind", json!({})).delay(day)).await?;
//! assert_eq!(store.drain(remind).await?.completed, 0);
//! store.clock().advance(day);
//! assert_eq!(store.drain(remind).await?.completed, 1);
//!
//! // Three days of a nightly report: three runs, each at three o'clock in Berlin.
//! let nightly = Schedule::cron("0 3 * * *").tz("Europe/Berlin");
//! store.scheduler().schedule(NewJob::new("report", json!({})).job_id("nightly"), nightly).await?;
//! let report = |worker: naq_worker::WorkerBuilder| worker.handler("report", || async {});
//! assert_eq!(store.drain_for(3 * day, report).await?.completed, 3);
//! let last: Timestamp = "2026-11-24T02:00:00Z".parse()?;
//! let run = store.jobs().status(&format!("nightly_{}", last.unix_millis()).parse()?).await?;
//! assert_eq!(run.finished_at, Some(last));
//! store.scheduler().cancel(&"nightly".parse()?).await?;
//!
//! // A job that fails once is tried again ten seconds later.
//! store.jobs().enqueue(NewJob::new("flaky", json!({})).retry_delay(secs(10)).retry_jitter(0.0)).await?;
//! let flaky = |cx: JobContext| async move {
//!     if cx.attempt() == 1 { Err(Failure::new("net", "down")) } else { Ok(()) }
//! };
//! assert_eq!(store.drain(|worker| worker.handler("flaky", flaky)).await?.retried, 1);
//! assert_enqueued!(store, "flaky");
//! assert_eq!(store.drain_for(secs(10), |worker| worker.handler("flaky", flaky)).await?.completed, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! By this clock go: due times and delays, retries, recurring jobs, how long results, unique keys and other keys are kept,
//! and all times in jobs and results. In real time stay: how long a handler may run (its timeout, and
//! [`DRAIN_LIMIT`]), leases, the scheduler's lock and the list of workers. Handlers run on the runtime of the test, also if
//! tokio's own time is paused there.

mod config;
mod drain;
mod expected;
mod rounds;
mod store;

pub use config::{TempConfig, TempConfigError, temp_config, temp_config_yaml};
pub use drain::{DRAIN_LIMIT, DrainError};
pub use expected::Expected;
#[doc(inline)]
pub use naq_services::storage::VirtualClock;
pub use store::TestStore;
