//! The twins of the free functions for programs without async: the same connection, a blocked thread.
//!
//! Invariant: usable from any thread, also from within a runtime (where it blocks that runtime's thread); never panics
//! for where it is called. The connection is the process-wide one, and stays open from call to call.

use std::time::Duration;

use naq_models::Timestamp;
use naq_services::{JobHandle, NewJob, Receipt, ResultError, ServiceManager, WorkerInfo, jobs::ResultState};
use serde::de::DeserializeOwned;

use crate::{Result, background::run_async_from_sync as block_on, process};

macro_rules! blocking {
    ($($twin:ident $([$R:ident])? of $original:ident($($name:ident: $of:ty),*) -> $told:ty;)*) => { $(
        #[doc = concat!("[`", stringify!($original), "`](crate::", stringify!($original), "), blocking.")]
        ///
        /// # Errors
        /// As the original.
        pub fn $twin $(<$R>)? ($($name: $of),*) -> Result<$told> {
            block_on(process::$original($($name),*))?
        }
    )* };
}

blocking! {
    connect_sync of connect(url: &str) -> ();
    install_sync of install(manager: ServiceManager) -> ();
    disconnect_sync of disconnect() -> ();
    enqueue_sync [R] of enqueue(job: NewJob<R>) -> JobHandle<R>;
    enqueue_at_sync [R] of enqueue_at(time: Timestamp, job: NewJob<R>) -> JobHandle<R>;
    enqueue_in_sync [R] of enqueue_in(delay: Duration, job: NewJob<R>) -> JobHandle<R>;
    enqueue_all_sync [R] of enqueue_all(jobs: Vec<NewJob<R>>) -> Vec<Receipt>;
    enqueue_many_sync [R] of enqueue_many(jobs: Vec<NewJob<R>>) -> Vec<Result<Receipt>>;
    purge_queue_sync of purge_queue(queue: &str) -> u64;
    fetch_job_result_sync of fetch_job_result(id: &str) -> ResultState;
    list_workers_sync of list_workers() -> Vec<WorkerInfo>;
}

/// [`JobHandle::result_within`], blocking.
///
/// # Errors
/// The outer one if the thread of the connection cannot be started; the inner one as the original.
pub fn wait_for_result_sync<R: DeserializeOwned>(
    job: &JobHandle<R>,
    timeout: Duration,
) -> Result<Result<R, ResultError>> {
    block_on(job.result_within(timeout))
}
