//! Recurring jobs, over the process-wide connection.
//!
//! Invariant: defining a schedule again changes nothing, so that every deploy can repeat it; whoever leads among the
//! workers fires it. Not here: one job at one time, which is `enqueue_at`.

use naq_models::{Schedule, ScheduleId, ScheduleRecord};
use naq_services::{
    NewJob, SchedulerService,
    scheduler::{Changed, ScheduleList, Triggered, Upserted},
};

use crate::{QueueError, Result, background::run_async_from_sync as block_on, process};

/// Lets a job recur. Its schedule has the id that the job was given (`job_id`); without one the id is made of the job's
/// kind, queue and args, so that the same call is the same schedule, whatever its timing.
///
/// ```no_run
/// # use naq_queue::{NewJob, Schedule, schedule};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let report = NewJob::new("report", serde_json::json!({"format": "pdf"})).job_id("nightly");
/// let nightly = schedule(report, Schedule::cron("0 3 * * *").tz("Europe/Berlin")).await?;
/// println!("next at {:?}", nightly.record.next);
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the schedule or the job cannot be used, the configuration is wrong, or the store fails.
pub async fn schedule<R>(job: NewJob<R>, schedule: Schedule) -> Result<Upserted> {
    scheduler().await?.schedule(job, schedule).await.map_err(QueueError::schedule)
}

/// A schedule, also one that has ended.
///
/// # Errors
/// If there is none of this id, or the store fails.
pub async fn get_scheduled_job(id: &str) -> Result<ScheduleRecord> {
    let id = schedule_id(id)?;
    scheduler().await?.get(&id).await.map_err(QueueError::schedule)
}

/// All schedules, also those that have ended.
///
/// # Errors
/// If the store fails.
pub async fn list_scheduled_jobs() -> Result<ScheduleList> {
    scheduler().await?.list().await.map_err(QueueError::schedule)
}

/// Ends a schedule. Runs that are in their queue go on.
///
/// # Errors
/// If there is none of this id, or the store fails.
pub async fn cancel_scheduled_job(id: &str) -> Result<Changed> {
    let id = schedule_id(id)?;
    scheduler().await?.cancel(&id).await.map_err(QueueError::schedule)
}

/// Holds a schedule until it is resumed.
///
/// # Errors
/// If there is none of this id, it has ended, or the store fails.
pub async fn pause_scheduled_job(id: &str) -> Result<Changed> {
    let id = schedule_id(id)?;
    scheduler().await?.pause(&id).await.map_err(QueueError::schedule)
}

/// Lets a paused schedule go on. What was due meanwhile is not made up for.
///
/// # Errors
/// As [`pause_scheduled_job`].
pub async fn resume_scheduled_job(id: &str) -> Result<Changed> {
    let id = schedule_id(id)?;
    scheduler().await?.resume(&id).await.map_err(QueueError::schedule)
}

/// Gives a schedule another job and timing.
///
/// # Errors
/// If there is none of this id, it is cancelled, the schedule or the job cannot be used, or the store fails.
pub async fn modify_scheduled_job<R>(id: &str, job: NewJob<R>, schedule: Schedule) -> Result<Changed> {
    let id = schedule_id(id)?;
    let scheduler = scheduler().await?;
    let definition = scheduler.define(job, schedule).map_err(QueueError::schedule)?;
    scheduler.modify(&id, definition).await.map_err(QueueError::schedule)
}

/// Starts an extra run of a schedule now, beside its timing.
///
/// # Errors
/// If there is none of this id, it is cancelled, or the store fails.
pub async fn trigger_scheduled_job(id: &str) -> Result<Triggered> {
    let id = schedule_id(id)?;
    scheduler().await?.trigger(&id).await.map_err(QueueError::schedule)
}

/// [`schedule`], blocking.
///
/// # Errors
/// As the original.
pub fn schedule_sync<R>(job: NewJob<R>, schedule: Schedule) -> Result<Upserted> {
    block_on(self::schedule(job, schedule))?
}

/// [`modify_scheduled_job`], blocking.
///
/// # Errors
/// As the original.
pub fn modify_scheduled_job_sync<R>(id: &str, job: NewJob<R>, schedule: Schedule) -> Result<Changed> {
    block_on(modify_scheduled_job(id, job, schedule))?
}

macro_rules! blocking {
    ($($twin:ident of $original:ident($($id:ident)?) -> $told:ty;)*) => { $(
        #[doc = concat!("[`", stringify!($original), "`], blocking.")]
        ///
        /// # Errors
        /// As the original.
        pub fn $twin($($id: &str)?) -> Result<$told> {
            block_on($original($($id)?))?
        }
    )* };
}

blocking! {
    get_scheduled_job_sync of get_scheduled_job(id) -> ScheduleRecord;
    list_scheduled_jobs_sync of list_scheduled_jobs() -> ScheduleList;
    cancel_scheduled_job_sync of cancel_scheduled_job(id) -> Changed;
    pause_scheduled_job_sync of pause_scheduled_job(id) -> Changed;
    resume_scheduled_job_sync of resume_scheduled_job(id) -> Changed;
    trigger_scheduled_job_sync of trigger_scheduled_job(id) -> Triggered;
}

async fn scheduler() -> Result<SchedulerService> {
    Ok(SchedulerService::new(process::jobs().await?))
}

fn schedule_id(id: &str) -> Result<ScheduleId> {
    ScheduleId::new(id).map_err(QueueError::name)
}
