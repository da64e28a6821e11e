//! The twins of the free functions for programs without async: the same connection, a blocked thread.
//!
//! Invariant: usable from any thread, also from within a runtime (where it blocks that runtime's thread); never panics
//! for where it is called. The connection is the process-wide one.

use std::time::Duration;

use naq_models::Timestamp;
use naq_services::{JobHandle, NewJob, Receipt, ResultError, jobs::ResultState};
use serde::de::DeserializeOwned;

use crate::{Result, background::block_on, process};

/// [`connect`](crate::connect), blocking.
///
/// # Errors
/// As the original.
pub fn connect_sync(url: &str) -> Result<()> {
    let url = url.to_owned();
    block_on(async move { process::connect(&url).await })?
}

/// [`disconnect`](crate::disconnect), blocking.
///
/// # Errors
/// As the original.
pub fn disconnect_sync() -> Result<()> {
    block_on(process::disconnect())?
}

/// [`enqueue`](crate::enqueue), blocking.
///
/// # Errors
/// As the original.
pub fn enqueue_sync<R: 'static>(job: NewJob<R>) -> Result<JobHandle<R>> {
    block_on(process::enqueue(job))?
}

/// [`enqueue_at`](crate::enqueue_at), blocking.
///
/// # Errors
/// As the original.
pub fn enqueue_at_sync<R: 'static>(time: Timestamp, job: NewJob<R>) -> Result<JobHandle<R>> {
    block_on(process::enqueue_at(time, job))?
}

/// [`enqueue_in`](crate::enqueue_in), blocking.
///
/// # Errors
/// As the original.
pub fn enqueue_in_sync<R: 'static>(delay: Duration, job: NewJob<R>) -> Result<JobHandle<R>> {
    block_on(process::enqueue_in(delay, job))?
}

/// [`enqueue_many`](crate::enqueue_many), blocking.
///
/// # Errors
/// As the original.
pub fn enqueue_many_sync<R: 'static>(jobs: Vec<NewJob<R>>) -> Result<Vec<Result<Receipt>>> {
    block_on(process::enqueue_many(jobs))?
}

/// [`purge_queue`](crate::purge_queue), blocking.
///
/// # Errors
/// As the original.
pub fn purge_queue_sync(queue: &str) -> Result<u64> {
    let queue = queue.to_owned();
    block_on(async move { process::purge_queue(&queue).await })?
}

/// [`fetch_job_result`](crate::fetch_job_result), blocking.
///
/// # Errors
/// As the original.
pub fn fetch_job_result_sync(id: &str) -> Result<ResultState> {
    let id = id.to_owned();
    block_on(async move { process::fetch_job_result(&id).await })?
}

/// [`JobHandle::result_within`], blocking.
///
/// # Errors
/// The outer one if the thread of the connection cannot be started; the inner one as the original.
pub fn wait_for_result_sync<R>(job: &JobHandle<R>, timeout: Duration) -> Result<Result<R, ResultError>>
where
    R: DeserializeOwned + Send + 'static,
{
    let job = job.clone();
    block_on(async move { job.result_within(timeout).await })
}
