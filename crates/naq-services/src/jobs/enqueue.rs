//! Enqueueing: from a [`NewJob`] or an envelope to a [`Receipt`].
//!
//! Invariant: a receipt is given only for a job that the store has durably, or that was there before. What cannot run
//! is refused here, with a typed error, before anything is stored.
//!
//! Not here: what an id excludes (the store, atomically), what a unique key does ([`super::unique`]).

use futures_util::future::{join, join_all};
use naq_models::{Address, Job, JobId, JobStatus, Priority, QueueName, Timestamp, Unique, wire};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use tracing::Instrument as _;

use super::{
    JobService, JobServiceError, JobServiceErrorKind, Result, Submission,
    sight::Trace,
    tell::Untold,
    unique::{Planned, Want},
};
use crate::{
    handle::JobHandle,
    host_clock::host_time,
    new_job::{MAX_KIND, NewJob},
    storage::{Enqueued, Entry},
    trace_context::Sending,
};

/// Entries per call of the store at first, and at most: bounds memory, and what is unknown to a caller who drops the future.
/// Each is twice as large as the one before, because the store idles between two, and at the start until the first is encoded.
const BATCH_FIRST: usize = 1_024;
const BATCH_MAX: usize = 8_192;
/// Duplicates that are looked up at once.
const LOOKUPS: usize = 32;
/// How often an id is tried that is taken by something that cannot be seen.
const VANISHED_TRIES: usize = 3;

/// What became of an enqueued job: what `naq job enqueue` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The job.
    pub job_id: JobId,
    /// The queue it is in; of a duplicate, the queue of the job that was there.
    pub queue: QueueName,
    /// `pending`, `scheduled` or `waiting`; of a duplicate, where the job that was there stands.
    pub status: JobStatus,
    /// A job of this id, or with this unique key, was there before, and nothing was stored.
    pub duplicate: bool,
}

impl JobService {
    /// Stores a job durably.
    ///
    /// # Errors
    /// If it is not a valid job, too large, or the store fails. After a storage error the job may or may not be stored;
    /// enqueueing it again under an id of one's own is safe.
    pub async fn enqueue<R>(&self, job: NewJob<R>) -> Result<JobHandle<R>> {
        let host_now = self.host_time();
        let clock = self.clock(job.has_time(), host_now).await;
        let job = self.build(job, host_now, &clock)?;
        let result_ttl = job.job.result_ttl;
        let receipt = self.store(std::iter::once(Ok(job)), &clock).await.pop().expect("one outcome per job")?;
        Ok(JobHandle::enqueued(self.clone(), receipt, result_ttl))
    }

    /// Stores many jobs, in batches. One outcome per job, in order.
    pub async fn enqueue_many<R>(&self, jobs: Vec<NewJob<R>>) -> Vec<Result<Receipt>> {
        let host_now = self.host_time();
        let clock = self.clock(jobs.iter().any(NewJob::has_time), host_now).await;
        self.store(jobs.into_iter().map(|job| self.build(job, host_now, &clock)), &clock).await
    }

    /// Stores a finished envelope (a [`Job`]): as [`enqueue`](Self::enqueue). It starts its first life, whatever it says
    /// of attempts, runs and results.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub async fn enqueue_raw(&self, job: impl Into<Submission>) -> Result<Receipt> {
        self.enqueue_raw_many(vec![job]).await.pop().expect("one outcome per job")
    }

    /// Stores finished envelopes, in batches. One outcome per job, in order.
    pub async fn enqueue_raw_many<J: Into<Submission>>(&self, jobs: Vec<J>) -> Vec<Result<Receipt>> {
        let jobs: Vec<Submission> = jobs.into_iter().map(Into::into).collect();
        let clock = self.clock(jobs.iter().any(|submission| submission.job.run_at.is_some()), self.host_time()).await;
        self.store(jobs.into_iter().map(Ok), &clock).await
    }

    /// Reads an envelope as a producer writes it: one JSON object, of which only `v`, `kind` and `args` must be there.
    /// What it leaves out is taken from the configuration; an id is generated.
    ///
    /// # Errors
    /// If the text is not an envelope; the source names line and column.
    pub fn read_submission(&self, text: &[u8]) -> Result<Job> {
        /// What an envelope may leave to the configuration.
        #[derive(Deserialize)]
        struct Said {
            max_retries: Option<IgnoredAny>,
            timeout: Option<IgnoredAny>,
            result_ttl: Option<IgnoredAny>,
        }
        let refuse = |message: &str| JobServiceError::new(JobServiceErrorKind::InvalidJob, message);
        let now = self.host_time();
        let defaults = &self.settings().defaults;
        let fallback = Address {
            id: JobId::generate(now, rand::random()),
            queue: defaults.queue.clone(),
            priority: Priority::default(),
            stored_at: now,
        };
        let mut job = wire::decode_submission(text, fallback)
            .map_err(|source| refuse("cannot read the job").with_source(source))?;
        let said: Said =
            serde_json::from_slice(text).map_err(|source| refuse("cannot read the job").with_source(source))?;
        if said.max_retries.is_none() {
            job.retry.max_retries = defaults.max_retries;
        }
        if said.timeout.is_none() {
            job.timeout = defaults.timeout;
        }
        if said.result_ttl.is_none() {
            job.result_ttl = defaults.result_ttl;
        }
        Ok(job)
    }

    /// Gives a job its id and times. `clock` is the store's time where the job's own counts from it.
    pub(super) fn build<R>(
        &self,
        job: NewJob<R>,
        host_now: Timestamp,
        clock: &Result<Timestamp>,
    ) -> Result<Submission> {
        let on_conflict = job.conflict_answer().unwrap_or_default();
        let now = if job.has_delay() { clock.clone()? } else { host_now };
        let id = JobId::generate(host_now, rand::random());
        let job = job.into_job(id, now, &self.settings().defaults).map_err(|source| {
            JobServiceError::new(JobServiceErrorKind::InvalidJob, "cannot enqueue the job").with_source(source)
        })?;
        Ok(Submission { job, on_conflict })
    }

    /// One outcome per job, in order. What is an error already stays one. While the store takes a batch, the next one is
    /// encoded, and the one before it told of.
    async fn store(
        &self,
        mut jobs: impl Iterator<Item = Result<Submission>>,
        clock: &Result<Timestamp>,
    ) -> Vec<Result<Receipt>> {
        let mut sending = Sending::of(jobs.size_hint().0);
        let mut size = BATCH_FIRST;
        let mut encode = |sending: &mut Sending| {
            let batch = jobs.by_ref().take(size).map(|job| self.plan(job?, clock, sending)).collect::<Vec<_>>();
            size = (2 * size).min(BATCH_MAX);
            batch
        };
        let (mut outcomes, mut batch, mut untold) = (Vec::new(), encode(&mut sending), Vec::new());
        while !batch.is_empty() {
            let span = sending.span();
            let before = std::mem::take(&mut untold);
            let meanwhile = async {
                self.tell_stored(before);
                encode(&mut sending)
            };
            // In this order: the first has sent its batch before the second takes the thread.
            let (stored, next) = join(self.store_planned(batch, &mut untold), meanwhile).instrument(span).await;
            outcomes.extend(stored);
            batch = next;
        }
        self.tell_stored(untold);
        outcomes
    }

    pub(super) fn plan(
        &self,
        Submission { mut job, on_conflict }: Submission,
        clock: &Result<Timestamp>,
        sending: &mut Sending,
    ) -> Result<Planned> {
        sending.carry(&mut job);
        let want = Want::of(&job, on_conflict, 0);
        Ok(Planned { entry: self.entry(job, clock)?, want })
    }

    /// Checks a job and decides where it goes. `clock` is the store's time if the job has a time.
    fn entry(&self, mut job: Job, clock: &Result<Timestamp>) -> Result<Entry> {
        check(&job)?;
        (job.attempt, job.run, job.generation, job.last_error) = (1, 1, 0, None);
        let status = match job.run_at {
            // Also if all of them have ended: the leader looks, and looks at the time then.
            _ if !job.depends_on.is_empty() => JobStatus::Waiting,
            Some(due) if due > clock.clone()? => JobStatus::Scheduled,
            _ => JobStatus::Pending,
        };
        self.sized_entry(&job, status)
    }

    /// That a job which waits for no time could be stored, as far as this can be known without storing it.
    pub(crate) fn check_storable(&self, job: Job) -> Result<()> {
        let clock = Ok(job.enqueued_at);
        self.entry(job, &clock).map(drop)
    }

    /// Encodes a job, if it is not too large.
    pub(super) fn sized_entry(&self, job: &Job, status: JobStatus) -> Result<Entry> {
        let entry = Entry::new(job, status, self.settings().format).map_err(|source| {
            let message = format!("cannot write job {}", job.id);
            JobServiceError::new(JobServiceErrorKind::NotBuilt, message).with_source(source)
        })?;
        let (limit, whose) = self.body_limit();
        if entry.body.len() > limit {
            let message = format!("job {} is {} bytes; at most {limit} fit ({whose})", job.id, entry.body.len());
            return Err(JobServiceError::new(JobServiceErrorKind::TooLarge, message)
                .with_hint("store the data elsewhere and pass its address, or raise serialization.max_payload"));
        }
        Ok(entry)
    }

    /// One outcome per entry, in order; what there is to tell then is added to `untold`.
    pub(super) async fn store_batch(
        &self,
        batch: Vec<Result<Entry>>,
        untold: &mut Vec<Untold>,
    ) -> Vec<Result<Receipt>> {
        // A generated id is never a duplicate, and bulk enqueueing is not to pay for copies that nobody reads.
        let plans: Vec<Result<(Receipt, Option<Entry>)>> = batch
            .iter()
            .map(|entry| {
                let entry = entry.as_ref().map_err(Clone::clone)?;
                let copy = (!entry.address.id.is_generated()).then(|| entry.clone());
                Ok((receipt(entry), copy))
            })
            .collect();
        let to_tell = self.to_tell(&batch);
        let entries: Vec<Entry> = batch.into_iter().filter_map(Result::ok).collect();
        let stored = if entries.is_empty() { Vec::new() } else { self.storage().enqueue(entries).await };
        let mut stored = stored.into_iter();
        let mut outcomes = Vec::with_capacity(plans.len());
        let mut duplicates = Vec::new();
        for plan in plans {
            outcomes.push(match plan {
                Err(refused) => Err(refused),
                Ok((receipt, copy)) => match stored.next().expect("one outcome per entry") {
                    Ok(Enqueued::Stored) => Ok(receipt),
                    Ok(Enqueued::Duplicate) => {
                        duplicates.push((outcomes.len(), copy));
                        Ok(Receipt { duplicate: true, ..receipt })
                    }
                    Err(source) => {
                        Err(JobServiceError::storage(format!("cannot enqueue job {}", receipt.job_id), source))
                    }
                },
            });
        }
        for some in duplicates.chunks(LOOKUPS) {
            let found = join_all(some.iter().map(|(at, copy)| self.duplicate(*at, copy.as_ref()))).await;
            for (at, outcome) in found {
                if let Some(outcome) = outcome {
                    outcomes[at] = outcome;
                }
            }
        }
        let is_new = |outcome: &Result<Receipt>| outcome.as_ref().is_ok_and(|receipt| !receipt.duplicate);
        untold
            .extend(to_tell.into_iter().zip(&outcomes).filter_map(|(told, outcome)| told.filter(|_| is_new(outcome))));
        outcomes
    }

    /// What is in the way of an entry. If nothing is any more, the entry is stored after all.
    async fn duplicate(&self, at: usize, entry: Option<&Entry>) -> (usize, Option<Result<Receipt>>) {
        // Without a copy the id is a generated one: this very job, stored by an earlier, ambiguous try of the store.
        let Some(entry) = entry else { return (at, None) };
        for _ in 0..VANISHED_TRIES {
            match self.find(&entry.address.id).await {
                Ok(trace) => return (at, Some(Ok(duplicate_receipt(&trace)))),
                Err(error) if error.kind() == JobServiceErrorKind::NotFound => {}
                Err(error) => return (at, Some(Err(error))),
            }
            match self.storage().enqueue(vec![entry.clone()]).await.pop() {
                Some(Ok(Enqueued::Stored)) => return (at, Some(Ok(receipt(entry)))),
                Some(Ok(Enqueued::Duplicate)) => {}
                Some(Err(source)) => {
                    let message = format!("cannot enqueue job {}", entry.address.id);
                    return (at, Some(Err(JobServiceError::storage(message, source))));
                }
                None => unreachable!("one outcome per entry"),
            }
        }
        let message = format!("the id {} is taken, and the job that took it is not there (yet)", entry.address.id);
        let error = JobServiceError::new(JobServiceErrorKind::Conflict, message)
            .with_hint("another producer may be enqueueing it at this moment: try again in a minute");
        (at, Some(Err(error)))
    }

    /// The time for ids and `enqueued_at`: the host's, unless a test moves the store's.
    pub(super) fn host_time(&self) -> Timestamp {
        self.storage().virtual_clock().map_or_else(host_time, |clock| clock.now())
    }

    /// The store's time if a job needs it; asking costs a round trip.
    pub(super) async fn clock(&self, needed: bool, host_now: Timestamp) -> Result<Timestamp> {
        if needed { self.store_time().await } else { Ok(host_now) }
    }

    pub(super) async fn store_time(&self) -> Result<Timestamp> {
        let asked = self.storage().now().await;
        asked.map_err(|source| JobServiceError::storage("cannot ask the store for its time", source))
    }
}

pub(super) fn receipt(entry: &Entry) -> Receipt {
    Receipt {
        job_id: entry.address.id.clone(),
        queue: entry.address.queue.clone(),
        status: entry.status,
        duplicate: false,
    }
}

pub(super) fn duplicate_receipt(trace: &Trace) -> Receipt {
    Receipt { job_id: trace.id().clone(), queue: trace.queue().clone(), status: trace.status(), duplicate: true }
}

/// What makes a job one that can run; the types prove the rest.
fn check(job: &Job) -> Result<()> {
    let refuse = |kind, why: String| Err(JobServiceError::new(kind, format!("cannot enqueue job {}: {why}", job.id)));
    if job.kind.is_empty() || job.kind.len() > MAX_KIND || job.kind.chars().any(char::is_control) {
        let why = format!("its kind is not 1 to {MAX_KIND} bytes without control characters");
        return refuse(JobServiceErrorKind::InvalidJob, why);
    }
    if job.timeout.is_zero() {
        return refuse(JobServiceErrorKind::InvalidJob, "a timeout of zero leaves it no time to run".to_owned());
    }
    if job.depends_on.contains(&job.id) {
        return refuse(JobServiceErrorKind::InvalidJob, "it depends on itself".to_owned());
    }
    if let Some(Err(why)) = job.unique.as_ref().map(Unique::check) {
        return refuse(JobServiceErrorKind::InvalidJob, why.to_string());
    }
    Ok(())
}
