//! [`JobTemplate`]: the job that a schedule makes, again and again.
//!
//! Invariant: it holds what all runs share (kind, args, queue, priority, retries, timeout, result_ttl, unique key,
//! metadata, unknown fields) and nothing of one run; two templates are equal if their runs would be. It is stored in
//! the field names of the envelope (`wire`).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{MIN_RESULT_TTL, ScheduleError};
use crate::{Job, JobId, ScheduleId, Timestamp, wire};

/// The job that a schedule makes.
#[derive(Debug, Clone, PartialEq)]
pub struct JobTemplate(Job);

impl JobTemplate {
    /// The shared part of `job`; its id, times and counts are dropped.
    ///
    /// # Errors
    /// If the job depends on others: a recurring job would wait for the same ended jobs each time.
    pub fn new(job: Job) -> Result<Self, ScheduleError> {
        if !job.depends_on.is_empty() {
            return Err(ScheduleError::DependsOn);
        }
        let mut shared = Job::new(placeholder(), job.kind, job.args, Timestamp::EPOCH);
        shared.queue = job.queue;
        shared.priority = job.priority;
        shared.retry = job.retry;
        shared.timeout = job.timeout;
        shared.result_ttl = job.result_ttl;
        shared.unique = job.unique;
        shared.meta = job.meta;
        shared.extra = job.extra;
        Ok(Self(shared))
    }

    /// The shared part as a job; its id and times mean nothing.
    #[must_use]
    pub fn as_job(&self) -> &Job {
        &self.0
    }

    /// The run of `schedule` that is due at `due`, enqueued at `now`. With `keep_result` its result is kept for at
    /// least [`MIN_RESULT_TTL`], because the schedule asks for it.
    #[must_use]
    pub fn run(&self, schedule: &ScheduleId, due: Timestamp, now: Timestamp, keep_result: bool) -> Job {
        let mut job = self.0.clone();
        job.id = schedule.run_id(due);
        job.schedule_id = Some(schedule.as_str().to_owned());
        job.enqueued_at = now;
        if keep_result {
            job.result_ttl = job.result_ttl.max(MIN_RESULT_TTL);
        }
        job
    }
}

fn placeholder() -> JobId {
    JobId::new("template").expect("a valid id")
}

impl Serialize for JobTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        wire::serialize_shared(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for JobTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let job = wire::deserialize_shared(placeholder(), deserializer)?;
        Self::new(job).map_err(serde::de::Error::custom)
    }
}
