//! `naq job control ID …`: one command for jobs and recurring jobs, for who has an id and does not care what it names.
//!
//! Invariant: does what `naq job` or `naq scheduler` does, and prints what they print; an id that names both a job and a
//! schedule that have not ended is refused where the two could be mixed up.

use naq_models::{JobId, ScheduleId, ScheduleRecord, ScheduleStatus};
use naq_services::{JobService, JobServiceErrorKind, SchedulerService, SchedulerServiceErrorKind};

use super::{job, scheduler};
use crate::{
    args::{BY_HAND, ControlVerb},
    error::CliError,
    output::Output,
};

pub(crate) async fn run(jobs: &JobService, out: Output, id: JobId, verb: ControlVerb) -> Result<(), CliError> {
    let service = SchedulerService::new(jobs.clone());
    let schedule = find(&service, &id).await?;
    match (verb, schedule) {
        (ControlVerb::Pause, Some(record)) => scheduler::changed(out, &service.pause(&record.id).await?, "paused"),
        (ControlVerb::Resume, Some(record)) => scheduler::changed(out, &service.resume(&record.id).await?, "resumed"),
        (ControlVerb::Pause | ControlVerb::Resume, None) => Err(not_pausable(jobs, &id).await),
        (ControlVerb::Cancel, Some(record)) if is_meant(jobs, &id, &record).await? => {
            scheduler::changed(out, &service.cancel(&record.id).await?, "cancelled")
        }
        (ControlVerb::Reschedule { .. }, Some(record)) if is_meant(jobs, &id, &record).await? => {
            Err(CliError::failed(format!("{id} is a recurring job: its next run follows from its timing")).with_hint(
                "give it another timing with `naq scheduler upsert`, or run it once now with `naq scheduler trigger`",
            ))
        }
        (ControlVerb::Cancel, _) => job::cancel(jobs, out, &[id], BY_HAND).await,
        (ControlVerb::Reschedule { when }, _) => job::reschedule(jobs, out, &id, &when).await,
    }
}

/// The schedule of this id, also one that has ended.
async fn find(service: &SchedulerService, id: &JobId) -> Result<Option<ScheduleRecord>, CliError> {
    // A job may have an id that is too long for a schedule.
    let Ok(id) = ScheduleId::new(id.as_str()) else { return Ok(None) };
    match service.get(&id).await {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.kind() == SchedulerServiceErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether the schedule is meant and not a job of the same id.
async fn is_meant(jobs: &JobService, id: &JobId, record: &ScheduleRecord) -> Result<bool, CliError> {
    let live_job = match jobs.status(id).await {
        Ok(view) => !view.status.is_terminal(),
        Err(error) if error.kind() == JobServiceErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    let has_ended = matches!(record.status, ScheduleStatus::Cancelled | ScheduleStatus::Completed);
    match (live_job, has_ended) {
        (true, false) => Err(CliError::failed(format!("{id} is both a job and a recurring job"))
            .with_hint("say which: `naq job cancel`, `naq job reschedule`, or `naq scheduler cancel`")),
        (live_job, _) => Ok(!live_job),
    }
}

/// Why something that is no schedule cannot be paused or resumed.
async fn not_pausable(jobs: &JobService, id: &JobId) -> CliError {
    match jobs.status(id).await {
        Ok(view) => CliError::failed(format!("{id} is a single job: only recurring jobs can be paused and resumed"))
            .with_hint(format!(
                "hold everything in its queue with `naq queue pause {}`, or move it with `naq job reschedule`",
                view.queue
            )),
        Err(error) if error.kind() == JobServiceErrorKind::NotFound => {
            CliError::not_found(format!("there is neither a recurring job nor a job {id}"))
                .with_hint("`naq scheduler jobs` lists the recurring jobs; is this the right store?")
        }
        Err(error) => error.into(),
    }
}
