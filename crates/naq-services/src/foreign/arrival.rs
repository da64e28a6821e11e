//! How records of another system arrive: a page of them is stored, each as what it becomes here.
//!
//! Invariant: what this reports as stored is durable, or was before; only that may go there. What naq does not take stays
//! there. A failure of naq's store stops everything, but what was stored before it may still go.

use naq_models::{JobError, JobId, JobResult, JobStatus, Timestamp};

use super::{
    ForeignError, ForeignErrorKind, ForeignReport, Item, Left, LeftReason, NOT_STORED, Result,
    mapping::{Incoming, Recurring},
};
use crate::{
    CallError, JobService, JobServiceError, JobServiceErrorKind, NewJob, SchedulerService, SchedulerServiceError,
    SchedulerServiceErrorKind, StorageErrorKind,
    storage::{DeadLetter, Enqueued, Entry, Remains, ResultRecord, crash::crash_point},
};

/// What became of a page.
pub(super) struct Stored<'a, P> {
    report: &'a mut ForeignReport,
    /// What can go there.
    pub(super) places: Vec<(String, P)>,
    /// What stops everything, once what can go has gone.
    pub(super) failure: Option<ForeignError>,
}

impl<'a, P> Stored<'a, P> {
    pub(super) fn new(report: &'a mut ForeignReport) -> Self {
        Self { report, places: Vec::new(), failure: None }
    }

    /// Stores what can be stored.
    pub(super) async fn take(&mut self, to: &SchedulerService, page: Vec<Item<P>>, now: Timestamp) {
        let mut jobs = Vec::new();
        for Item { label, place, read } in page {
            match read {
                Ok(Incoming::Job(job)) => jobs.push((label, place, *job)),
                Ok(Incoming::Recurring(recurring)) => {
                    let outcome = define(to, *recurring).await;
                    self.note(label, place, outcome);
                }
                Ok(Incoming::Failed(job, error)) => {
                    let outcome = bury(to.jobs(), *job, error, now).await;
                    self.note(label, place, outcome);
                }
                Err(left) => self.report.leave(label, left),
            }
        }
        let new = jobs.iter().map(|(_, _, job)| job.clone()).collect();
        let outcomes = to.jobs().enqueue_many(new).await;
        for ((label, place, job), outcome) in jobs.into_iter().zip(outcomes) {
            let outcome = match outcome {
                Ok(receipt) if receipt.duplicate => same_or_taken(to.jobs(), &receipt.job_id, job.kind()).await,
                Ok(receipt) => Ok(Became::Job(receipt.status)),
                Err(error) => Err(error.into()),
            };
            self.note(label, place, outcome);
        }
    }

    /// Counts what [`take`](Self::take) would store.
    pub(super) fn foresee(&mut self, to: &SchedulerService, page: Vec<Item<P>>, now: Timestamp) {
        for Item { label, place: _, read } in page {
            match read.and_then(|incoming| foreseen(to, incoming, now)) {
                Ok(became) => self.report.count(became),
                Err(left) => self.report.leave(label, left),
            }
        }
    }

    fn note(&mut self, label: String, place: P, outcome: Result<Became, Trouble>) {
        match outcome {
            Ok(became) => {
                self.report.count(became);
                self.places.push((label, place));
            }
            Err(Trouble::Left(left)) => self.report.leave(label, left),
            Err(Trouble::Failed(failure)) => {
                self.failure.get_or_insert(failure);
            }
        }
    }
}

/// What a record has become here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    Job(JobStatus),
    Schedule,
    /// It was brought over before.
    WasHere,
}

/// Why a record did not become anything.
enum Trouble {
    /// It stays there.
    Left(Left),
    /// Nothing can be stored at the moment.
    Failed(ForeignError),
}

impl From<JobServiceError> for Trouble {
    fn from(error: JobServiceError) -> Self {
        match error.kind() {
            JobServiceErrorKind::Storage(kind) => Self::failed(kind, error),
            _ => Self::Left(refusal(&error)),
        }
    }
}

impl From<SchedulerServiceError> for Trouble {
    fn from(error: SchedulerServiceError) -> Self {
        match error.kind() {
            SchedulerServiceErrorKind::Storage(kind) => Self::failed(kind, error),
            _ => Self::Left(refusal(&error)),
        }
    }
}

impl Trouble {
    fn failed<K: Copy + std::fmt::Debug + Send + Sync + 'static>(kind: StorageErrorKind, error: CallError<K>) -> Self {
        let hint = error.hint().map(str::to_owned);
        let failure = ForeignError::new(ForeignErrorKind::Destination(kind), NOT_STORED);
        Self::Failed(failure.with_hint_of(hint.as_deref()).with_source(error))
    }
}

/// That naq does not take something, and why; that it could not be enqueued goes without saying.
fn refusal(error: &dyn std::error::Error) -> Left {
    let causes = std::iter::successors(Some(error.source().unwrap_or(error)), |error| error.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    Left::new(LeftReason::Refused, words.join(": "))
}

/// What a record would become, without asking the store.
fn foreseen(to: &SchedulerService, incoming: Incoming, now: Timestamp) -> Result<Became, Left> {
    let build = |job: NewJob| {
        let built = job.into_job(JobId::generate(now, rand::random()), now, &to.jobs().settings().defaults);
        built.map_err(|error| refusal(&error))
    };
    match incoming {
        Incoming::Job(job) => Ok(Became::Job(match build(*job)? {
            job if !job.depends_on.is_empty() => JobStatus::Waiting,
            job if job.run_at.is_some_and(|due| due > now) => JobStatus::Scheduled,
            _ => JobStatus::Pending,
        })),
        Incoming::Failed(job, _) => build(*job).map(|_| Became::Job(JobStatus::Failed)),
        Incoming::Recurring(recurring) => match recurring.schedule {
            Some(schedule) => to.define(recurring.job, schedule).map(|_| Became::Schedule).map_err(|e| refusal(&e)),
            None => build(recurring.job).map(|_| Became::Schedule),
        },
    }
}

/// Stores a recurring job, and before it the run that is overdue.
async fn define(to: &SchedulerService, recurring: Recurring) -> Result<Became, Trouble> {
    let Recurring { id, job, schedule, paused, overdue } = recurring;
    let kind = job.kind().to_owned();
    let definition = schedule.map(|schedule| to.define(job, schedule)).transpose()?;
    if let Some(run) = overdue {
        let receipt = to.jobs().enqueue_many(vec![run]).await.pop().expect("one outcome per job")?;
        if receipt.duplicate {
            same_or_taken(to.jobs(), &receipt.job_id, &kind).await?;
        }
        crash_point("foreign.overdue");
    }
    let Some(definition) = definition else { return Ok(Became::Schedule) };
    let (is_new, record) = to.introduce(&id, definition, paused).await?;
    if is_new {
        return Ok(Became::Schedule);
    }
    same(id.as_str(), &kind, &record.definition.job.as_job().kind)
}

/// Stores a job that has failed for good, with its error, so that it can be given a new life.
async fn bury(jobs: &JobService, job: NewJob, error: JobError, now: Timestamp) -> Result<Became, Trouble> {
    let refused = |error: &dyn std::error::Error| Trouble::Left(refusal(error));
    let id = job.chosen_id().cloned().unwrap_or_else(|| JobId::generate(now, rand::random()));
    let job = job.into_job(id, now, &jobs.settings().defaults).map_err(|error| refused(&error))?;
    let entry = Entry::new(&job, JobStatus::Pending, jobs.settings().format).map_err(|error| refused(&error))?;
    let result = JobResult { error: Some(error.clone()), ..JobResult::of(&job, JobStatus::Failed, error.timestamp) };
    let result =
        ResultRecord { status: JobStatus::Failed, body: result.encode().into(), generation: 0, ttl: job.result_ttl };
    let remains = Remains {
        result: (!job.result_ttl.is_zero()).then_some(result),
        dead_letter: Some(DeadLetter {
            address: entry.address.clone(),
            body: entry.body,
            error,
            kind: Some(job.kind.clone()),
        }),
        address: entry.address,
    };
    match jobs.storage().store_remains(vec![remains]).await.pop().expect("one outcome per job") {
        Ok(Enqueued::Stored) => Ok(Became::Job(JobStatus::Failed)),
        Ok(Enqueued::Duplicate) => same_or_taken(jobs, &job.id, &job.kind).await,
        Err(error) if error.kind() == StorageErrorKind::TooLarge => Err(refused(&error)),
        Err(error) => Err(Trouble::Failed(ForeignError::destination_failed(error))),
    }
}

/// Whether the job of that id that is here is one brought over before, as far as its kind tells.
async fn same_or_taken(jobs: &JobService, id: &JobId, kind: &str) -> Result<Became, Trouble> {
    same(id.as_str(), kind, &jobs.status(id).await?.kind)
}

fn same(id: &str, kind: &str, here: &str) -> Result<Became, Trouble> {
    if kind == here {
        return Ok(Became::WasHere);
    }
    let detail = format!("{id} is a {kind:?} there and a {here:?} here");
    Err(Trouble::Left(Left::new(LeftReason::IdTaken, detail)))
}
