//! From what a handler said ([`Verdict`]) to what becomes of the job ([`Next`]).
//!
//! Invariant: the only place that decides between retry, snooze and end. Pure: time and jitter are arguments. The
//! attempt count grows only when a failed attempt is followed by another; `run` grows on every move.

use std::time::Duration;

use crate::{Job, JobError, JobStatus, RawJson, Timestamp, error_type};

/// What one run of a job led to, as its handler or the worker said.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It completed with this value.
    Complete(RawJson),
    /// It failed; the job's policy decides what follows.
    Error(JobError),
    /// It failed; try again after the given time (the policy's delay if `None`), as long as retries are left.
    Retry {
        /// Overrides the policy's delay.
        after: Option<Duration>,
        /// What went wrong.
        error: JobError,
    },
    /// It failed for good, whatever the policy says.
    Fail(JobError),
    /// It was cancelled, for this reason.
    Cancel(String),
    /// Run it again after this time; no attempt is counted.
    Snooze(Duration),
    /// No handler of its kind is known here. Another worker may know it: put back with backoff, no attempt counted,
    /// for [`UNKNOWN_KIND_PATIENCE`].
    UnknownKind,
}

/// What becomes of a job after a run.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "made once per run and taken apart at once; a box would cost an allocation"
)]
pub enum Next {
    /// It has ended.
    End {
        /// `completed`, `failed` or `cancelled`.
        status: JobStatus,
        /// The value of a completed job.
        value: Option<RawJson>,
        /// Why it failed or was cancelled.
        error: Option<JobError>,
    },
    /// It waits in the scheduled store for its next run.
    Again {
        /// The job as it is stored next.
        job: Job,
        /// `retry` or `scheduled`.
        status: JobStatus,
    },
}

/// How long a job of unknown kind is put back before it fails.
pub const UNKNOWN_KIND_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// The longest pause between two tries of a job of unknown kind.
const UNKNOWN_KIND_MAX_DELAY: Duration = Duration::from_secs(300);
/// The `meta` key that remembers when a job's kind was first found unknown.
pub(crate) const UNKNOWN_SINCE: &str = "naq.unknown_since";

/// Decides what becomes of `job` after a run that ended with `verdict` at `now`; `jitter` in 0..1 picks the point
/// within the spread of a retry delay. Errors are stamped with `now`, because handlers have no clock.
#[must_use]
pub fn next(job: &Job, mut verdict: Verdict, now: Timestamp, jitter: f64) -> Next {
    if let Verdict::Error(error) | Verdict::Retry { error, .. } | Verdict::Fail(error) = &mut verdict {
        error.timestamp = now;
    }
    match verdict {
        Verdict::Complete(value) => Next::End { status: JobStatus::Completed, value: Some(value), error: None },
        Verdict::Error(error) => after_error(job, error, None, now, jitter),
        Verdict::Retry { after, error } => after_error(job, error, after, now, jitter),
        Verdict::Fail(error) => failed(job, error.permanent()),
        Verdict::Cancel(reason) => {
            let mut error = JobError::new(error_type::CANCELLED, reason, now).permanent();
            error.retry_count = job.attempt.saturating_sub(1);
            Next::End { status: JobStatus::Cancelled, value: None, error: Some(error) }
        }
        Verdict::Snooze(delay) => again(job.clone(), JobStatus::Scheduled, delay, now),
        Verdict::UnknownKind => unknown_kind(job, now),
    }
}

fn after_error(job: &Job, mut error: JobError, after: Option<Duration>, now: Timestamp, jitter: f64) -> Next {
    error.is_retryable = error.is_retryable && job.retry.allows(&error.error_type);
    if !error.is_retryable || job.attempt > job.retry.max_retries {
        return failed(job, error);
    }
    error.retry_count = job.attempt - 1;
    let delay = after.unwrap_or_else(|| job.retry.delay_before(job.attempt, jitter));
    let mut retried = job.clone();
    retried.attempt = retried.attempt.saturating_add(1);
    retried.last_error = Some(error);
    again(retried, JobStatus::Retry, delay, now)
}

fn failed(job: &Job, mut error: JobError) -> Next {
    error.retry_count = job.attempt.saturating_sub(1);
    Next::End { status: JobStatus::Failed, value: None, error: Some(error) }
}

fn again(mut job: Job, status: JobStatus, delay: Duration, now: Timestamp) -> Next {
    job.run = job.run.saturating_add(1);
    job.run_at = Some(now.saturating_add(delay));
    Next::Again { job, status }
}

fn unknown_kind(job: &Job, now: Timestamp) -> Next {
    let since = job.meta.get(UNKNOWN_SINCE).and_then(|json| json.to::<Timestamp>().ok()).unwrap_or(now);
    let waited = now.since(since);
    if waited >= UNKNOWN_KIND_PATIENCE {
        let message = format!("no worker knew a handler of kind {:?} for 24 h", job.kind);
        return failed(job, JobError::new(error_type::UNKNOWN_KIND, message, now).permanent());
    }
    let mut job = job.clone();
    let since = RawJson::from_value(&since).expect("a time is a JSON string");
    job.meta.insert(UNKNOWN_SINCE.to_owned(), since);
    // For whoever wonders why it waits.
    let message = format!("the worker that took it has no handler of kind {:?}", job.kind);
    job.last_error = Some(JobError::new(error_type::UNKNOWN_KIND, message, now));
    // The pause equals the time already waited, so that tries double in distance.
    again(job, JobStatus::Scheduled, waited.clamp(Duration::from_secs(1), UNKNOWN_KIND_MAX_DELAY), now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::JobId;

    fn job(max_retries: u32) -> Job {
        let mut job = Job::new(JobId::new("j").unwrap(), "k", RawJson::parse("{}").unwrap(), Timestamp::EPOCH);
        job.retry.max_retries = max_retries;
        job
    }

    fn error() -> JobError {
        JobError::new("net", "down", Timestamp::EPOCH)
    }

    #[test]
    fn an_unretryable_error_ends_at_once() {
        let mut ignored = job(5);
        ignored.retry.ignore_on = vec!["net".into()];
        for (job, verdict) in [
            (job(5), Verdict::Fail(error())),
            (job(5), Verdict::Error(error().permanent())),
            (ignored, Verdict::Error(error())),
            (job(0), Verdict::Retry { after: None, error: error() }),
        ] {
            let Next::End { status, error, .. } = next(&job, verdict, Timestamp::EPOCH, 0.5) else { panic!("went on") };
            assert_eq!(status, JobStatus::Failed);
            assert_eq!(error.unwrap().error_type, "net");
        }
    }

    #[test]
    fn errors_carry_the_time_of_their_end() {
        let now = Timestamp::from_unix_millis(5_000).unwrap();
        for verdict in [Verdict::Error(error().permanent()), Verdict::Fail(error())] {
            let Next::End { error, .. } = next(&job(5), verdict, now, 0.5) else { panic!("went on") };
            assert_eq!(error.unwrap().timestamp, now);
        }
    }

    #[test]
    fn snooze_moves_without_an_attempt() {
        let Next::Again { job, status } = next(&job(0), Verdict::Snooze(Duration::from_secs(7)), Timestamp::EPOCH, 0.5)
        else {
            panic!("ended")
        };
        assert_eq!((job.attempt, job.run, status), (1, 2, JobStatus::Scheduled));
        assert_eq!(job.run_at.unwrap().unix_millis(), 7_000);
    }

    #[test]
    fn the_last_attempt_that_can_be_counted_is_counted_again() {
        let mut job = job(u32::MAX);
        (job.attempt, job.run) = (u32::MAX, u32::MAX);
        let Next::Again { job, .. } = next(&job, Verdict::Error(error()), Timestamp::EPOCH, 0.5) else {
            panic!("ended")
        };
        assert_eq!((job.attempt, job.run), (u32::MAX, u32::MAX), "and not the first");
    }

    #[test]
    fn unknown_kind_backs_off_for_a_day() {
        let (mut job, mut now, mut tries) = (job(0), Timestamp::EPOCH, 0);
        loop {
            match next(&job, Verdict::UnknownKind, now, 0.5) {
                Next::Again { job: moved, .. } => {
                    assert_eq!(moved.attempt, 1);
                    assert_eq!(moved.last_error.as_ref().unwrap().error_type, error_type::UNKNOWN_KIND);
                    now = moved.run_at.unwrap();
                    job = moved;
                    tries += 1;
                }
                Next::End { status, error, .. } => {
                    assert_eq!(status, JobStatus::Failed);
                    assert_eq!(error.unwrap().error_type, error_type::UNKNOWN_KIND);
                    break;
                }
            }
            assert!(tries < 1_000, "never gave up");
        }
        assert!(now.unix_millis() >= 24 * 3_600_000);
    }

    proptest! {
        #[test]
        fn at_most_one_run_more_than_retries(max_retries in 0u32..30, jitter in 0.0f64..1.0) {
            let (mut job, mut runs) = (job(max_retries), 0u32);
            loop {
                runs += 1;
                match next(&job, Verdict::Error(error()), Timestamp::EPOCH, jitter) {
                    Next::Again { job: moved, status } => {
                        prop_assert!(JobStatus::Running.can_become(status));
                        prop_assert_eq!(moved.run, job.run + 1);
                        job = moved;
                    }
                    Next::End { status, .. } => {
                        prop_assert!(status.is_terminal());
                        break;
                    }
                }
            }
            prop_assert_eq!(runs, max_retries + 1);
        }
    }
}
