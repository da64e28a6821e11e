//! The samples that both systems' tests read, written by Python (`samples/make.py`), and what they become.

use naq_models::{Job, JobId, QueueName, Timestamp};

use crate::{JobDefaults, NewJob};

/// A sample, from a file of tests one folder deeper than the samples.
macro_rules! sample {
    ($name:literal) => {
        include_bytes!(concat!("../samples/", $name)).as_slice()
    };
}
pub(super) use sample;

/// 2026-11-22T10:00:00.250Z, when the samples are due.
pub(super) const DUE: i64 = 1_795_341_600_250;

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis).unwrap()
}

/// The job as it would be stored where `standard` is the default queue.
pub(super) fn built(job: NewJob) -> Job {
    let defaults = JobDefaults { queue: QueueName::new("standard").unwrap(), ..JobDefaults::default() };
    job.into_job(JobId::new("none").unwrap(), at(0), &defaults).unwrap()
}
