//! What both Python systems have in common on the way to a naq job: names, arguments, durations.
//!
//! Invariant: pure. What is not mapped without loss is refused, with a [`Left`] that says why.

use std::{collections::BTreeMap, time::Duration};

use naq_models::{JobError, JobId, RawJson, Schedule, ScheduleId, Timestamp, duration, error::error_type};
use serde::de::IgnoredAny;

use super::{Left, LeftReason};
use crate::NewJob;

/// What a record of the other system becomes.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A job, at once, delayed, or waiting for others.
    Job(Box<NewJob>),
    /// A recurring job.
    Recurring(Box<Recurring>),
    /// A job that has failed there for good.
    Failed(Box<NewJob>, JobError),
}

/// A recurring job of the other system.
#[derive(Debug)]
pub(super) struct Recurring {
    pub(super) id: ScheduleId,
    pub(super) job: NewJob,
    /// `None` if the run that is overdue is its last.
    pub(super) schedule: Option<Schedule>,
    pub(super) paused: bool,
    /// The run that was due while nothing was up: a start that has passed makes up for nothing.
    pub(super) overdue: Option<NewJob>,
}

/// How a schedule of the other system goes on.
#[derive(Debug)]
pub(super) struct Recurrence {
    pub(super) schedule: Schedule,
    pub(super) next_run: Option<Timestamp>,
    /// How many runs are left, if there is an end.
    pub(super) runs: Option<u64>,
    pub(super) paused: bool,
}

/// Kinds by function path; a path that is not there is its own kind.
pub(super) type Kinds = BTreeMap<String, String>;

pub(super) fn kind_of(path: &str, kinds: &Kinds) -> String {
    kinds.get(path).map_or_else(|| path.to_owned(), Clone::clone)
}

/// Arguments by position or by name; naq has no job with both.
pub(super) fn args_of(args: RawJson, kwargs: RawJson) -> Result<RawJson, Left> {
    let malformed = |what: &str| Left::new(LeftReason::NotAJob, what);
    let positional = args.to::<Vec<IgnoredAny>>().map_err(|_| malformed("its args are no list"))?;
    let named = kwargs.to::<BTreeMap<String, IgnoredAny>>().map_err(|_| malformed("its kwargs are no object"))?;
    match (positional.len(), named.len()) {
        (_, 0) => Ok(args),
        (0, _) => Ok(kwargs),
        (by_position, by_name) => Err(Left::new(
            LeftReason::ArgsOfBothKinds,
            format!("{by_position} arguments by position and {by_name} by name"),
        )),
    }
}

/// The id as it is, or with each byte that naq does not allow in an id as `_` and two hex digits: the same id each time.
pub(super) fn id_text(id: &str) -> String {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let escaped = |byte: u8| if allowed(&byte) { char::from(byte).to_string() } else { format!("_{byte:02x}") };
    id.bytes().map(escaped).collect()
}

pub(super) fn job_id(id: &str) -> Result<JobId, Left> {
    JobId::new(id_text(id)).map_err(|source| Left::new(LeftReason::NotAJob, source.to_string()))
}

fn schedule_id(id: &str) -> Result<ScheduleId, Left> {
    ScheduleId::new(id_text(id)).map_err(|source| Left::new(LeftReason::NotAJob, source.to_string()))
}

pub(super) fn seconds(what: &str, seconds: f64) -> Result<Duration, Left> {
    duration::from_seconds(seconds)
        .map_err(|why| Left::new(LeftReason::NotAJob, format!("{what} of {seconds} seconds: {why}")))
}

/// A Unix time in seconds.
#[cfg(feature = "nats")]
pub(super) fn unix_time(seconds: f64) -> Result<Timestamp, Left> {
    self::seconds("a time", seconds).map(|since| Timestamp::EPOCH.saturating_add(since))
}

/// The name of an exception class, of `module:Qualified.Name`: what a handler in Python gives as the type of an error.
#[cfg(feature = "nats")]
pub(super) fn class_name(class: &str) -> String {
    class.rsplit([':', '.']).next().unwrap_or(class).to_owned()
}

/// A recurring job at `now`, from the job of its runs.
pub(super) fn recurring(id: &str, job: NewJob, recurrence: Recurrence, now: Timestamp) -> Result<Incoming, Left> {
    let Recurrence { mut schedule, next_run, runs, paused } = recurrence;
    let id = schedule_id(id)?;
    if let Some(start) = next_run {
        schedule = schedule.start(start);
    }
    let due = next_run.filter(|due| !paused && *due <= now);
    // The id that the run would have as one of the schedule, so that it cannot be there twice.
    let overdue = due.map(|due| job.clone().job_id(id.run_id(due)));
    let left = runs.map(|runs| runs - u64::from(overdue.is_some()));
    let schedule = match left {
        None => Some(schedule),
        Some(0) => None,
        Some(runs) => Some(schedule.repeat(runs)),
    };
    Ok(Incoming::Recurring(Box::new(Recurring { id, job, schedule, paused, overdue })))
}

/// Why a job failed there. What kind of error it was, neither system keeps.
pub(super) fn failure(message: Option<String>, backtrace: Option<String>, timestamp: Timestamp) -> JobError {
    let error = JobError::new(error_type::ERROR, message.unwrap_or_default(), timestamp);
    match backtrace {
        Some(backtrace) => error.with_backtrace(backtrace),
        None => error,
    }
}
