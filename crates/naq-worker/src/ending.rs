//! What a job leaves behind when it ends or moves on: results, dead letters and next entries as the seam takes them.
//!
//! Invariant: pure; every failed job has a dead letter with its original bytes, a cancelled one keeps its envelope in its
//! result, and a result over the store's limit is a failure. What becomes of a job is decided in
//! [`naq_models::outcome`]; here it is only written down.

use bytes::Bytes;
use naq_models::{
    Address, Job, JobError, JobId, JobResult, JobStatus, Next, RawJson, Timestamp, WireFormat, error_type, job,
    wire::{self, EncodeError},
};
use naq_services::storage::{Action, DeadLetter, Entry, ResultRecord, ScheduledEntry};

use crate::report::Outcome;

/// The job as it lies in the store, and the limits it is under.
pub(crate) struct Subject<'a> {
    pub(crate) address: &'a Address,
    pub(crate) body: &'a Bytes,
    pub(crate) worker_id: Option<&'a str>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) now: Timestamp,
    /// The largest result the store takes, in bytes.
    pub(crate) max_body: usize,
}

impl<'a> Subject<'a> {
    /// A job that no worker has.
    pub(crate) fn waiting(entry: &'a ScheduledEntry, now: Timestamp, max_body: usize) -> Self {
        Self { address: &entry.address, body: &entry.body, worker_id: None, started_at: None, now, max_body }
    }

    /// Writes down what becomes of a job.
    pub(crate) fn conclude(&self, job: &Job, next: Next, format: WireFormat) -> Result<(Action, Outcome), EncodeError> {
        match next {
            Next::End { status, value, error } => Ok(self.end(job, status, value, error)),
            Next::Again { job, status } => {
                let outcome = if status == JobStatus::Retry { Outcome::Retried } else { Outcome::Snoozed };
                Ok((Action::Again(Entry::new(&job, status, format)?), outcome))
            }
        }
    }

    fn end(&self, job: &Job, status: JobStatus, value: Option<RawJson>, error: Option<JobError>) -> (Action, Outcome) {
        let dead_letter = (status == JobStatus::Failed)
            .then(|| self.dead_letter(Some(&job.kind), error.clone().unwrap_or_else(|| self.unexplained())));
        let result = self.result(job, status, value, error);
        if let Some(result) = &result
            && result.body.len() > self.max_body
            && status == JobStatus::Completed
        {
            return self.too_large(job, result.body.len());
        }
        (Action::End { result, dead_letter, unique_key: job.key_freed_at_end() }, Outcome::of(status))
    }

    fn result(
        &self,
        job: &Job,
        status: JobStatus,
        value: Option<RawJson>,
        error: Option<JobError>,
    ) -> Option<ResultRecord> {
        (!job.result_ttl.is_zero()).then(|| {
            let mut result = JobResult::of(job, status, self.now);
            result.worker_id = self.worker_id.map(str::to_owned);
            result.started_at = self.started_at;
            result.result = value;
            result.error = error;
            let bare = record(&result, job.generation, job.result_ttl);
            if status != JobStatus::Cancelled {
                return bare;
            }
            result.job = envelope(job);
            let whole = record(&result, job.generation, job.result_ttl);
            if whole.body.len() <= self.max_body { whole } else { bare }
        })
    }

    /// Ends a completed job whose result the store does not take.
    pub(crate) fn too_large(&self, job: &Job, size: usize) -> (Action, Outcome) {
        let limit = self.max_body;
        let message = format!("the result has {size} bytes; the store takes at most {limit}");
        self.fail(job, JobError::new(error_type::RESULT_TOO_LARGE, message, self.now))
    }

    /// Ends a job for good, whatever its policy says.
    pub(crate) fn fail(&self, job: &Job, mut error: JobError) -> (Action, Outcome) {
        error.retry_count = job.attempt.saturating_sub(1);
        self.end(job, JobStatus::Failed, None, Some(error.permanent()))
    }

    /// Ends a job that an operator has cancelled.
    pub(crate) fn cancel(&self, job: &Job, reason: &str) -> (Action, Outcome) {
        self.cancel_as(job, error_type::CANCELLED, reason)
    }

    /// Ends a job whose unique key another one has.
    pub(crate) fn supersede(&self, job: &Job, by: &JobId) -> (Action, Outcome) {
        self.cancel_as(job, error_type::REPLACED, &format!("job {by} has its unique key"))
    }

    fn cancel_as(&self, job: &Job, error_type: &str, reason: &str) -> (Action, Outcome) {
        let result = self.cancelled_result(job, JobError::new(error_type, reason, self.now));
        (Action::End { result, dead_letter: None, unique_key: job.key_freed_at_end() }, Outcome::Cancelled)
    }

    /// What a job leaves that is cancelled because of `error`; `None` if it keeps nothing.
    pub(crate) fn cancelled_result(&self, job: &Job, error: JobError) -> Option<ResultRecord> {
        let error = JobError { retry_count: job.attempt.saturating_sub(1), ..error.permanent() };
        self.result(job, JobStatus::Cancelled, None, Some(error))
    }

    /// Ends a job that cannot be read: its bytes are kept as they are.
    pub(crate) fn bury(&self, message: String) -> (ResultRecord, DeadLetter) {
        let error = JobError::new(error_type::DECODE, message, self.now).permanent();
        let result = JobResult {
            id: self.address.id.clone(),
            status: JobStatus::Failed,
            result: None,
            error: Some(error.clone()),
            kind: String::new(),
            queue: self.address.queue.clone(),
            attempt: 1,
            worker_id: self.worker_id.map(str::to_owned),
            run_at: None,
            enqueued_at: self.address.stored_at,
            started_at: None,
            finished_at: self.now,
            job: None,
        };
        (record(&result, 0, job::DEFAULT_RESULT_TTL), self.dead_letter(None, error))
    }

    /// Completes the end of a job whose result is stored already: what a crash left undone.
    pub(crate) fn complete(&self, job: &Job, result: &[u8]) -> Action {
        let dead_letter = match JobResult::decode(result) {
            Ok(result) if result.status == JobStatus::Failed => {
                Some(self.dead_letter(Some(&job.kind), result.error.unwrap_or_else(|| self.unexplained())))
            }
            Ok(_) => None,
            Err(error) => {
                tracing::error!(job = %job.id, %error, "the stored result of a redelivered job cannot be read");
                None
            }
        };
        Action::End { result: None, dead_letter, unique_key: job.key_freed_at_end() }
    }

    fn dead_letter(&self, kind: Option<&String>, error: JobError) -> DeadLetter {
        let address = Address { stored_at: self.now, ..self.address.clone() };
        DeadLetter { address, body: self.body.clone(), error, kind: kind.cloned() }
    }

    fn unexplained(&self) -> JobError {
        JobError::new(error_type::ERROR, "the job failed without an error", self.now).permanent()
    }
}

fn record(result: &JobResult, generation: u64, ttl: std::time::Duration) -> ResultRecord {
    ResultRecord { status: result.status, body: result.encode().into(), generation, ttl }
}

fn envelope(job: &Job) -> Option<RawJson> {
    let json = wire::encode(job, WireFormat::Json).ok()?;
    RawJson::parse(std::str::from_utf8(&json).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use naq_models::{Verdict, outcome};

    use super::*;

    fn job() -> Job {
        Job::new(JobId::new("j").unwrap(), "k", RawJson::parse("{\"a\":1}").unwrap(), Timestamp::EPOCH)
    }

    fn check(job: &Job, verdict: Verdict, max_body: usize) -> (Action, Outcome) {
        let body = Bytes::from_static(b"the original bytes");
        let address = Address {
            id: job.id.clone(),
            queue: job.queue.clone(),
            priority: job.priority,
            stored_at: Timestamp::EPOCH,
        };
        let subject = Subject {
            address: &address,
            body: &body,
            worker_id: Some("w"),
            started_at: None,
            now: Timestamp::from_unix_millis(9).unwrap(),
            max_body,
        };
        subject.conclude(job, outcome::next(job, verdict, subject.now, 0.5), WireFormat::Json).unwrap()
    }

    fn value(text: &str) -> Verdict {
        Verdict::Complete(RawJson::from_value(text).unwrap())
    }

    #[test]
    fn a_failure_keeps_the_original_bytes_and_a_cancelled_job_its_envelope() {
        let error = JobError::new("x", "m", Timestamp::EPOCH);
        let (action, outcome) = check(&job(), Verdict::Fail(error), 1 << 20);
        let Action::End { result: Some(result), dead_letter: Some(letter), .. } = action else { panic!("{action:?}") };
        assert_eq!((outcome, result.status), (Outcome::Failed, JobStatus::Failed));
        assert_eq!(&letter.body[..], b"the original bytes");
        assert_eq!((letter.kind.as_deref(), letter.error.is_retryable), (Some("k"), false));

        let (action, _) = check(&job(), Verdict::Cancel("enough".into()), 1 << 20);
        let Action::End { result: Some(result), dead_letter: None, .. } = action else { panic!("{action:?}") };
        let result = JobResult::decode(&result.body).unwrap();
        assert_eq!(result.error.unwrap().message, "enough");
        assert!(result.job.unwrap().get().contains("\"kind\":\"k\""));
    }

    #[test]
    fn an_oversized_result_is_a_failure_and_no_result_is_none() {
        let (action, outcome) = check(&job(), value(&"x".repeat(5000)), 4096);
        let Action::End { result: Some(result), dead_letter: Some(letter), .. } = action else { panic!("{action:?}") };
        assert_eq!((outcome, letter.error.error_type.as_str()), (Outcome::Failed, error_type::RESULT_TOO_LARGE));
        assert!(result.body.len() < 4096);

        let mut silent = job();
        silent.result_ttl = Duration::ZERO;
        let (action, outcome) = check(&silent, value(&"x".repeat(5000)), 4096);
        assert_eq!(
            (action, outcome),
            (Action::End { result: None, dead_letter: None, unique_key: None }, Outcome::Completed)
        );
    }

    #[test]
    fn a_stored_failure_is_completed_with_its_dead_letter() {
        let failed = JobResult {
            error: Some(JobError::new("net", "down", Timestamp::EPOCH)),
            ..JobResult::of(&job(), JobStatus::Failed, Timestamp::EPOCH)
        };
        let body = Bytes::from_static(b"raw");
        let address =
            Address { id: job().id, queue: job().queue, priority: job().priority, stored_at: Timestamp::EPOCH };
        let subject = Subject {
            address: &address,
            body: &body,
            worker_id: None,
            started_at: None,
            now: Timestamp::EPOCH,
            max_body: 100,
        };
        let Action::End { result: None, dead_letter: Some(letter), .. } = subject.complete(&job(), &failed.encode())
        else {
            panic!("no dead letter")
        };
        assert_eq!(letter.error.error_type, "net");
        let completed = JobResult::of(&job(), JobStatus::Completed, Timestamp::EPOCH);
        assert_eq!(
            subject.complete(&job(), &completed.encode()),
            Action::End { result: None, dead_letter: None, unique_key: None }
        );
    }
}
