//! From what a store knows of a job ([`Sighting`]s) to where it stands ([`JobStatusView`]).
//!
//! Invariant: pure. Of several traces of one job the newest life counts, within a life the end, then the highest `run`.
//! A result of revision r belongs to a life that began before r: a trace whose `gen` is r or more is of a later life.
//!
//! Not here: asking the store.

use naq_models::{
    Address, DecodeError, Job, JobError, JobId, JobResult, JobStatus, Progress, QueueName, Timestamp, error_type, wire,
};
use serde::Serialize;

use super::{JobServiceError, JobServiceErrorKind, Result};
use crate::storage::{DeadLetter, RunningAt, ScheduledEntry, Sighting};

/// Where a job stands: what `naq job status` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobStatusView {
    /// The job.
    pub job_id: JobId,
    /// Its handler's name; empty if its bytes are not a job.
    pub kind: String,
    /// Its queue.
    pub queue: QueueName,
    /// Where it stands.
    pub status: JobStatus,
    /// The attempt that runs, comes next, or was the last.
    pub attempt: u32,
    /// When it was enqueued.
    pub enqueued_at: Timestamp,
    /// When it is or was due, if it was delayed.
    pub run_at: Option<Timestamp>,
    /// When its handler was started, if it runs or its end was recorded.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The worker that runs it or ended it.
    pub worker_id: Option<String>,
    /// While it is `waiting`: the jobs it depends on, whether or not some of them have ended. Not printed as JSON, which has
    /// the same fields for every job.
    #[serde(skip)]
    pub waits_for: Vec<JobId>,
    /// Why it failed or was cancelled; of a job that goes on, the error of its last attempt.
    pub error: Option<JobError>,
    /// How far it says it is, or was in its last attempt, if it said anything and has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// A sighting with its body read, as far as it can be.
#[derive(Debug)]
pub(super) enum Trace {
    Queued { address: Address, job: Result<Job, DecodeError>, running: Option<RunningAt> },
    Scheduled { entry: ScheduledEntry, job: Result<Job, DecodeError> },
    Dead { letter: DeadLetter, job: Result<Job, DecodeError> },
    Ended { revision: u64, result: Box<JobResult> },
}

impl Trace {
    /// # Errors
    /// If a result cannot be read: then not even its queue is known.
    pub(super) fn read(sighting: Sighting) -> Result<Self> {
        Ok(match sighting {
            Sighting::Queued { address, body, running } => {
                let job = wire::decode(&body, &address);
                Self::Queued { address, job, running }
            }
            Sighting::Scheduled(entry) => {
                let job = wire::decode(&entry.body, &entry.address);
                Self::Scheduled { entry, job }
            }
            Sighting::Dead(letter) => {
                let job = wire::decode(&letter.body, &letter.address);
                Self::Dead { letter, job }
            }
            Sighting::Ended(stored) => {
                let result = JobResult::decode(&stored.body).map_err(|source| {
                    let message = format!("the stored result of job {} cannot be read", stored.id);
                    JobServiceError::new(JobServiceErrorKind::Undecodable, message).with_source(source)
                })?;
                Self::Ended { revision: stored.revision, result: Box::new(result) }
            }
        })
    }

    pub(super) fn job(&self) -> Option<&Job> {
        match self {
            Self::Queued { job, .. } | Self::Scheduled { job, .. } | Self::Dead { job, .. } => job.as_ref().ok(),
            Self::Ended { .. } => None,
        }
    }

    pub(super) fn id(&self) -> &JobId {
        match self {
            Self::Queued { address, .. } => &address.id,
            Self::Scheduled { entry, .. } => &entry.address.id,
            Self::Dead { letter, .. } => &letter.address.id,
            Self::Ended { result, .. } => &result.id,
        }
    }

    pub(super) fn queue(&self) -> &QueueName {
        match self {
            Self::Queued { address, .. } => &address.queue,
            Self::Scheduled { entry, .. } => &entry.address.queue,
            Self::Dead { letter, .. } => &letter.address.queue,
            Self::Ended { result, .. } => &result.queue,
        }
    }

    pub(super) fn status(&self) -> JobStatus {
        match self {
            Self::Queued { running: Some(_), .. } => JobStatus::Running,
            Self::Queued { running: None, .. } => JobStatus::Pending,
            Self::Scheduled { entry, .. } => entry.status,
            Self::Dead { .. } => JobStatus::Failed,
            Self::Ended { result, .. } => result.status,
        }
    }

    /// The greatest rank is the truth. Parts: the life; that a result of revision r is older than a life that began
    /// from r; terminal; run.
    pub(super) fn rank(&self) -> (u64, bool, bool, u32) {
        let (generation, run) = self.job().map_or((0, 0), |job| (job.generation, job.run));
        match self {
            Self::Queued { .. } => (generation, true, false, run),
            Self::Scheduled { entry, .. } => (generation, true, false, run.max(entry.run)),
            Self::Dead { .. } => (generation, true, true, run),
            Self::Ended { revision, .. } => (*revision, false, true, 0),
        }
    }

    /// The trace that says where the job stands; `None` only if there is none.
    pub(super) fn newest(traces: Vec<Self>) -> Option<Self> {
        traces.into_iter().max_by_key(Self::rank)
    }

    /// What a person sees of it.
    pub(super) fn view(&self) -> JobStatusView {
        let view = match self {
            Self::Queued { address, job, .. } => of_job(address, job),
            Self::Scheduled { entry, job } => of_job(&entry.address, job),
            Self::Dead { letter, job } => of_job(&letter.address, job),
            Self::Ended { result, .. } => of_result(result),
        };
        let view = JobStatusView { status: self.status(), ..view };
        match self {
            Self::Queued { running: Some(at), .. } => {
                JobStatusView { started_at: Some(at.started_at), worker_id: Some(at.worker_id.clone()), ..view }
            }
            Self::Scheduled { entry, job } => {
                let waits = job.as_ref().ok().filter(|_| entry.status == JobStatus::Waiting);
                let waits_for = waits.map(|job| job.depends_on.clone()).unwrap_or_default();
                JobStatusView { run_at: entry.run_at, waits_for, ..view }
            }
            Self::Dead { letter, .. } => JobStatusView {
                kind: letter.kind.clone().unwrap_or(view.kind),
                finished_at: Some(letter.address.stored_at),
                error: Some(letter.error.clone()),
                ..view
            },
            Self::Queued { running: None, .. } | Self::Ended { .. } => view,
        }
    }
}

fn of_job(address: &Address, job: &Result<Job, DecodeError>) -> JobStatusView {
    let undecodable =
        |cause: &DecodeError| JobError::new(error_type::DECODE, cause.to_string(), address.stored_at).permanent();
    let known = job.as_ref().ok();
    JobStatusView {
        job_id: address.id.clone(),
        kind: known.map(|job| job.kind.clone()).unwrap_or_default(),
        queue: address.queue.clone(),
        status: JobStatus::Pending,
        attempt: known.map_or(1, |job| job.attempt),
        enqueued_at: known.map_or(address.stored_at, |job| job.enqueued_at),
        run_at: known.and_then(|job| job.run_at),
        started_at: None,
        finished_at: None,
        worker_id: None,
        waits_for: Vec::new(),
        error: match job {
            Ok(job) => job.last_error.clone(),
            Err(cause) => Some(undecodable(cause)),
        },
        progress: None,
    }
}

fn of_result(result: &JobResult) -> JobStatusView {
    JobStatusView {
        job_id: result.id.clone(),
        kind: result.kind.clone(),
        queue: result.queue.clone(),
        status: result.status,
        attempt: result.attempt,
        enqueued_at: result.enqueued_at,
        run_at: result.run_at,
        started_at: result.started_at,
        finished_at: Some(result.finished_at),
        worker_id: result.worker_id.clone(),
        waits_for: Vec::new(),
        error: result.error.clone(),
        progress: None,
    }
}

#[cfg(test)]
mod tests {
    use naq_models::{Priority, RawJson};

    use super::*;
    use crate::storage::StoredResult;

    fn address() -> Address {
        Address {
            id: JobId::new("j").unwrap(),
            queue: QueueName::default(),
            priority: Priority::default(),
            stored_at: Timestamp::EPOCH,
        }
    }

    fn body(generation: u64, run: u32) -> bytes::Bytes {
        let mut job = Job::new(address().id, "k", RawJson::parse("{}").unwrap(), Timestamp::EPOCH);
        (job.generation, job.run) = (generation, run);
        wire::encode(&job, naq_models::WireFormat::Json).unwrap().into()
    }

    fn queued(generation: u64, run: u32) -> Sighting {
        Sighting::Queued { address: address(), body: body(generation, run), running: None }
    }

    fn running(generation: u64, run: u32) -> Sighting {
        let at = RunningAt { worker_id: "w".into(), started_at: Timestamp::EPOCH };
        Sighting::Queued { address: address(), body: body(generation, run), running: Some(at) }
    }

    fn waits(status: JobStatus, generation: u64, run: u32) -> Sighting {
        let run_at = Timestamp::from_unix_millis(5_000);
        let body = body(generation, run);
        Sighting::Scheduled(ScheduledEntry { address: address(), status, run_at, run, revision: 1, body })
    }

    fn dead(body: bytes::Bytes) -> Sighting {
        let error = JobError::new("net", "down", Timestamp::EPOCH);
        Sighting::Dead(DeadLetter { address: address(), body, error, kind: None })
    }

    fn ended(status: JobStatus, revision: u64) -> Sighting {
        let job = Job::new(address().id, "k", RawJson::parse("{}").unwrap(), Timestamp::EPOCH);
        let body = JobResult::of(&job, status, Timestamp::EPOCH).encode().into();
        Sighting::Ended(StoredResult { id: address().id, body, revision, expires_at: Timestamp::EPOCH })
    }

    #[test]
    fn the_newest_life_counts_then_the_end_then_the_run() {
        use JobStatus::{Cancelled, Completed, Failed, Pending, Retry, Running, Scheduled};
        let garbage = || bytes::Bytes::from_static(b"\xff");
        let table = [
            ("alone in its queue", vec![queued(0, 1)], Pending),
            ("claimed", vec![running(0, 1)], Running),
            ("waits for its next attempt", vec![waits(Retry, 0, 2)], Retry),
            ("settled as retry, not yet acknowledged", vec![running(0, 1), waits(Retry, 0, 2)], Retry),
            ("promoted, entry not yet removed", vec![waits(Scheduled, 0, 1), queued(0, 2)], Pending),
            ("result written, not yet acknowledged", vec![running(0, 7), ended(Completed, 3)], Completed),
            ("cancelled while it waits", vec![waits(Scheduled, 0, 1), ended(Cancelled, 3)], Cancelled),
            ("dead letter written, not yet acknowledged", vec![queued(0, 1), dead(body(0, 1))], Failed),
            ("failed and settled", vec![dead(body(0, 1)), ended(Failed, 3)], Failed),
            ("a new life from result 3", vec![ended(Failed, 3), dead(body(0, 1)), queued(3, 2)], Pending),
            ("a new life that waits", vec![ended(Cancelled, 3), waits(Retry, 3, 3)], Retry),
            ("a new life that ended", vec![queued(3, 2), ended(Completed, 9)], Completed),
            ("what an old life left behind", vec![waits(Retry, 0, 9), running(3, 2), ended(Failed, 3)], Running),
            ("garbage with the dead letters", vec![queued(0, 1), dead(garbage())], Failed),
            ("garbage, not yet acknowledged", vec![dead(garbage())], Failed),
        ];
        for (name, mut sightings, expected) in table {
            for _ in 0..sightings.len() {
                sightings.rotate_left(1);
                let traces = sightings.clone().into_iter().map(|s| Trace::read(s).unwrap()).collect();
                assert_eq!(Trace::newest(traces).unwrap().view().status, expected, "{name}");
            }
        }
        assert!(Trace::newest(Vec::new()).is_none());
    }

    #[test]
    fn each_trace_tells_what_it_knows() {
        let view = |sighting| Trace::read(sighting).unwrap().view();
        let seen = view(running(0, 1));
        assert_eq!((seen.worker_id.as_deref(), seen.started_at), (Some("w"), Some(Timestamp::EPOCH)));
        assert_eq!(view(waits(JobStatus::Scheduled, 0, 1)).run_at, Timestamp::from_unix_millis(5_000));
        let seen = view(dead(body(0, 1)));
        assert_eq!((seen.kind.as_str(), seen.finished_at), ("k", Some(Timestamp::EPOCH)));
        assert_eq!(seen.error.unwrap().error_type, "net");
        let garbage = Sighting::Queued { address: address(), body: bytes::Bytes::from_static(b"{"), running: None };
        assert_eq!(view(garbage).error.unwrap().error_type, error_type::DECODE);
    }

    #[test]
    fn field_names_are_those_of_the_contract() {
        let json = serde_json::to_string(&Trace::read(queued(0, 1)).unwrap().view()).unwrap();
        let expected = concat!(
            r#"{"job_id":"j","kind":"k","queue":"default","status":"pending","attempt":1,"#,
            r#""enqueued_at":"1970-01-01T00:00:00.000Z","run_at":null,"started_at":null,"finished_at":null,"#,
            r#""worker_id":null,"error":null}"#
        );
        assert_eq!(json, expected);
    }
}
