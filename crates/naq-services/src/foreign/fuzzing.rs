//! The readers of other systems' records, for the fuzz targets of `tests/fuzz` (feature `fuzzing`): a server cannot be
//! filled for each of a million inputs.
//!
//! Invariant: the readers themselves, and then the same steps on the way to a store as in `arrival`. Not here: the store.

use std::collections::BTreeSet;

use naq_models::{Job, JobError, JobId, ScheduleDefinition, Timestamp};

use super::{
    Left, LeftReason,
    mapping::{Incoming, Kinds, Recurring},
    omniq::files,
    pickle, python_naq,
};
use crate::{JobDefaults, NewJob};

/// What a record would become here.
#[derive(Debug)]
pub struct Arrived {
    /// What would be stored: of a recurring job, its overdue run.
    pub job: Option<Job>,
    /// Of a failed job: why.
    pub error: Option<JobError>,
    /// Of a recurring job that has runs left.
    pub definition: Option<ScheduleDefinition>,
}

/// Why a record would be left, with the detail for people.
pub type Refusal = (LeftReason, String);

/// A payload of NAQ's stream of jobs.
///
/// # Errors
/// Why it would be left.
pub fn queued(payload: &[u8], now: Timestamp) -> Result<Arrived, Refusal> {
    let completed = python_naq::dependencies(payload).into_iter().take(1).collect::<BTreeSet<_>>();
    arrived(python_naq::queued(payload, &Kinds::new(), &completed), now)
}

/// A record of NAQ's scheduler.
///
/// # Errors
/// Why it would be left.
pub fn scheduled(record: &[u8], now: Timestamp) -> Result<Arrived, Refusal> {
    arrived(python_naq::scheduled(record, &Kinds::new(), now), now)
}

/// A dead letter of NAQ.
///
/// # Errors
/// Why it would be left.
pub fn failed(payload: &[u8], now: Timestamp) -> Result<Arrived, Refusal> {
    arrived(python_naq::failed(payload, &Kinds::new(), now), now)
}

/// A task file of OmniQ.
///
/// # Errors
/// Why it would be left.
pub fn task(content: &[u8], now: Timestamp) -> Result<Arrived, Refusal> {
    arrived(files::read(content, None, &Kinds::new(), now), now)
}

/// A pickle, whatever it holds.
///
/// # Errors
/// What is wrong with it, in words.
pub fn pickle(bytes: &[u8]) -> Result<(), String> {
    pickle::read(bytes).map(drop).map_err(|error| error.to_string())
}

fn arrived(read: Result<Incoming, Left>, now: Timestamp) -> Result<Arrived, Refusal> {
    let build = |job: NewJob| {
        let id = JobId::generate(now, [0; 10]);
        job.into_job(id, now, &JobDefaults::default()).map_err(|error| (LeftReason::Refused, error.to_string()))
    };
    let Recurring { job, schedule, overdue, .. } = match read.map_err(|left| (left.reason, left.detail))? {
        Incoming::Job(job) => return Ok(Arrived { job: Some(build(*job)?), error: None, definition: None }),
        Incoming::Failed(job, error) => {
            return Ok(Arrived { job: Some(build(*job)?), error: Some(error), definition: None });
        }
        Incoming::Recurring(recurring) => *recurring,
    };
    let run = build(job)?;
    let definition = schedule.map(|schedule| schedule.build(run)).transpose();
    let definition = definition.map_err(|error| (LeftReason::Refused, error.to_string()))?;
    Ok(Arrived { job: overdue.map(build).transpose()?, error: None, definition })
}
