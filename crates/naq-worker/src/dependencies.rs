//! The leader's third loop: jobs that wait for other jobs.
//!
//! Invariant: what a leader knows here it has read from the store (entries that wait, and how the jobs stand on which they
//! depend), and it writes nothing down: whoever leads next reads the same and comes to the same. Both ways out are one
//! guarded move of the seam, made once by whichever of two leaders comes first:
//! - every dependency has ended as it must: the entry is promoted, or gets its time as a delayed job if that is not due;
//! - one has not, and the job does not run all the same: it ends `cancelled`, with the reason. Its own result then reaches
//!   those that wait for it, so that the cascade goes through the whole graph, also over a crash.
//!
//! No end is missed: a dependency is followed first and looked at then; after lost news everything is looked at. A job
//! that nobody waits for is never looked at here.
//!
//! A dependency must be known [`GRACE`] after it was first looked for, so that jobs can be enqueued in any order. Its
//! result must be kept for as long as others wait: one that has expired counts as missing when leaders change.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::FutureExt;
use naq_models::{Job, JobError, JobId, JobResult, JobStatus, Timestamp, WireFormat};
use naq_services::{
    JobService, JobServiceError, JobServiceErrorKind, StorageError, StorageErrorKind,
    jobs::Standing,
    patterns::gather_with_concurrency,
    storage::{Ended, Ending, Entry, Promoted, ResultFeed, ResultNews, ScheduledEntry, WaitingEntry},
};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    clock::{BootTime, StoreClock},
    due::{Mover, Unreadable},
    ending::Subject,
    leader::Authority,
};

mod graph;

use graph::{Decision, Graph, Reason};

/// How long a dependency may be unknown: it may be enqueued after those that depend on it.
const GRACE: Duration = Duration::from_secs(60);
/// Entries per read and per promotion.
const BATCH: usize = 512;
/// Dependencies looked at, and jobs cancelled, at once.
const CONCURRENT: usize = 32;
/// The store's clock is asked again when the last answer is older than this.
const CLOCK_AGE: Duration = Duration::from_secs(1);
/// Pauses after a failure of the store grow between these.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Lets jobs go that wait for others, in the name of the leader.
pub(crate) struct Dependencies<'a> {
    pub(crate) jobs: &'a JobService,
    pub(crate) clock: &'a StoreClock,
    pub(crate) authority: Authority,
    pub(crate) format: WireFormat,
}

/// Why a turn was not finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DependenciesError {
    #[error(transparent)]
    Store(#[from] StorageError),
    /// Entries are stored in a form that this program was not built to read.
    #[error("{0}")]
    Format(String),
    /// Some jobs could not be looked at or moved; the others were.
    #[error("some could not be looked at or moved: {0}")]
    Again(String),
}

impl DependenciesError {
    fn again(error: &dyn std::error::Error) -> Self {
        Self::Again(error.to_string())
    }
}

/// How a dependency stands, as far as it could be told.
type Look = (JobId, Result<Standing, JobServiceError>);

/// What is known and what is to be done, over failures of the store.
#[derive(Default)]
struct Work {
    graph: Graph,
    /// Entries to be read.
    arrived: BTreeMap<JobId, u64>,
    /// Dependencies to be followed and looked at.
    begun: Vec<JobId>,
    /// Dependencies to be looked at in full.
    doubtful: BTreeSet<JobId>,
    /// Dependencies whose results are to be looked at: told of more than once, each is looked at once.
    rumoured: BTreeSet<JobId>,
    /// Whether the time of grace counts from the enqueue, by the store's clock, and not from the first look.
    by_store_clock: bool,
}

impl Dependencies<'_> {
    /// Works on what `arrivals` reports until it is dropped; ends only if the store fails for good.
    ///
    /// # Cancel safety
    /// Cancel safe for the store: each move is one call of the seam.
    pub(crate) async fn run(&self, mut arrivals: mpsc::UnboundedReceiver<Vec<WaitingEntry>>) -> DependenciesError {
        let mut work = Work::default();
        let mut feed = None;
        let mut pause = PAUSE_MIN;
        loop {
            match self.turn(&mut work, &mut feed, &mut arrivals).await {
                Ok(()) => pause = PAUSE_MIN,
                Err(DependenciesError::Format(text)) => return DependenciesError::Format(text),
                Err(DependenciesError::Store(error)) if !error.is_transient() => {
                    return DependenciesError::Store(error);
                }
                Err(error) => {
                    tracing::warn!(%error, "jobs that wait for others could not be looked after; tries again");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Takes in what is there and does what is to be done; if there was nothing, waits for more. Whatever could not be done
    /// stays in `work`.
    async fn turn(
        &self,
        work: &mut Work,
        feed: &mut Option<Box<dyn ResultFeed>>,
        arrivals: &mut mpsc::UnboundedReceiver<Vec<WaitingEntry>>,
    ) -> Result<(), DependenciesError> {
        let feed = match feed {
            Some(feed) => feed,
            None => feed.insert(self.jobs.storage().open_result_feed().await?),
        };
        while let Ok(some) = arrivals.try_recv() {
            work.arrive(some);
        }
        while let Some(news) = feed.next().now_or_never() {
            work.hear(news);
        }
        self.read_arrived(work).await?;
        for id in work.graph.take_finished() {
            feed.forget(&id);
        }
        work.begun.extend(work.graph.take_begun());
        feed.follow(&work.begun).await?;
        work.doubtful.extend(work.begun.drain(..));
        self.look(work).await?;
        if self.decide(work).await? {
            return Ok(());
        }
        let deadline = work.graph.next_deadline().map(|at| at.since(BootTime::now()));
        // Every branch is cancel safe.
        tokio::select! {
            Some(some) = arrivals.recv() => work.arrive(some),
            news = feed.next() => work.hear(news),
            () = sleep(deadline.unwrap_or_default()), if deadline.is_some() => {
                work.doubtful.extend(work.graph.overdue(BootTime::now()));
            }
        }
        Ok(())
    }

    /// Does everything that is to be done now, once and without following anything; returns how many jobs wait no longer.
    /// A missing dependency counts as one that does not exist when the store's clock says so.
    pub(crate) async fn once(&self, waiting: Vec<WaitingEntry>) -> Result<usize, DependenciesError> {
        let mut work = self.looked_at(waiting).await?;
        let mut decided = 0;
        loop {
            let some = work.graph.decided();
            if some == 0 {
                return Ok(decided);
            }
            decided += some;
            self.decide(&mut work).await?;
        }
    }

    /// When [`once`](Self::once) gives up waiting for a missing dependency next.
    pub(crate) async fn next_deadline(
        &self,
        waiting: Vec<WaitingEntry>,
    ) -> Result<Option<Timestamp>, DependenciesError> {
        let deadline = self.looked_at(waiting).await?.graph.next_deadline();
        let millis = deadline.and_then(|at| i64::try_from(at.nanos() / 1_000_000).ok());
        Ok(millis.and_then(Timestamp::from_unix_millis))
    }

    async fn looked_at(&self, waiting: Vec<WaitingEntry>) -> Result<Work, DependenciesError> {
        let mut work = Work { by_store_clock: true, ..Work::default() };
        work.arrive(waiting);
        self.read_arrived(&mut work).await?;
        work.doubtful.extend(work.graph.take_begun());
        self.look(&mut work).await?;
        Ok(work)
    }

    async fn read_arrived(&self, work: &mut Work) -> Result<(), DependenciesError> {
        while !work.arrived.is_empty() {
            let ids: Vec<JobId> = work.arrived.keys().take(BATCH).cloned().collect();
            let entries = self.jobs.storage().get_scheduled(&ids).await?;
            for entry in entries.into_iter().flatten().filter(|entry| entry.status == JobStatus::Waiting) {
                if let Some(job) = self.job(&entry, self.clock.now()).await? {
                    work.graph.add(&job, entry.revision);
                }
            }
            for id in ids {
                work.arrived.remove(&id);
            }
        }
        Ok(())
    }

    /// Looks at what is new or in doubt.
    async fn look(&self, work: &mut Work) -> Result<(), DependenciesError> {
        let rumoured = std::mem::take(&mut work.rumoured);
        let asked: Vec<_> = rumoured.into_iter().filter_map(|id| Some((work.graph.generation(&id)?, id))).collect();
        let looks = asked.into_iter().map(|(generation, id)| async move {
            let found = self.jobs.storage().get_result(&id).await;
            (id, found.map(|found| found.filter(|result| result.revision > generation)))
        });
        let found = gather_with_concurrency(looks, CONCURRENT).await;
        let mut trouble = None;
        for (id, found) in found {
            match found {
                Ok(None) => {}
                Ok(Some(stored)) => match JobResult::decode(&stored.body) {
                    Ok(result) => work.graph.ended(&id, result.status),
                    Err(error) => {
                        tracing::error!(job = %id, %error, "the result of a dependency cannot be read and counts as a failure");
                        work.graph.ended(&id, JobStatus::Failed);
                    }
                },
                Err(error) => {
                    work.rumoured.insert(id);
                    trouble = Some(DependenciesError::again(&error));
                }
            }
        }
        let doubtful = std::mem::take(&mut work.doubtful);
        let looks = doubtful.into_iter().filter(|id| work.graph.is_waited_for(id)).map(|id| async move {
            let standing = self.jobs.standing(&id).await;
            (id, standing)
        });
        let found: Vec<Look> = gather_with_concurrency(looks, CONCURRENT).await;
        // The store's clock in the form of the other, for a test that moves it.
        let as_boot = |at: Timestamp| {
            let millis = u64::try_from(at.unix_millis()).unwrap_or(0);
            BootTime::from_nanos(millis.saturating_mul(1_000_000))
        };
        let now = if work.by_store_clock { as_boot(self.clock.now()) } else { BootTime::now() };
        for (id, standing) in found {
            match standing {
                Ok(Standing::Ended(status)) => work.graph.ended(&id, status),
                Ok(Standing::Unfinished { keeps_result: false, .. }) => work.graph.keeps_no_result(&id),
                Ok(Standing::Unfinished { generation, keeps_result: true }) => work.graph.goes_on(&id, generation),
                Ok(Standing::Unknown) if work.by_store_clock => {
                    work.graph.is_missing(&id, now, |enqueued_at| as_boot(enqueued_at.saturating_add(GRACE)));
                }
                Ok(Standing::Unknown) => work.graph.is_missing(&id, now, |_| now.plus(GRACE)),
                Err(error) if error.kind() == JobServiceErrorKind::Undecodable => {
                    tracing::error!(job = %id, %error, "a dependency cannot be read and counts as a failure");
                    work.graph.ended(&id, JobStatus::Failed);
                }
                Err(error) => {
                    work.doubtful.insert(id);
                    trouble = Some(DependenciesError::again(&error));
                }
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Moves what is decided about; `false` if there was nothing.
    async fn decide(&self, work: &mut Work) -> Result<bool, DependenciesError> {
        let mut decided = work.graph.take_decided().into_iter();
        let mut any = false;
        let mut trouble = None;
        loop {
            let some: Vec<_> = decided.by_ref().take(BATCH).collect();
            if some.is_empty() {
                break;
            }
            any = true;
            match self.decide_batch(work, &some).await {
                Ok(()) => {}
                Err(error) => {
                    for (id, (revision, decision)) in some {
                        work.graph.put_back(id, revision, decision);
                    }
                    trouble = Some(error);
                }
            }
        }
        trouble.map_or(Ok(any), Err)
    }

    async fn decide_batch(
        &self,
        work: &mut Work,
        decided: &[(JobId, (u64, Decision))],
    ) -> Result<(), DependenciesError> {
        let ids: Vec<JobId> = decided.iter().map(|(id, _)| id.clone()).collect();
        let entries = self.jobs.storage().get_scheduled(&ids).await?;
        let now = self.clock.fresh(&**self.jobs.storage(), CLOCK_AGE).await?;
        let (mut released, mut refused) = (Vec::new(), Vec::new());
        for ((id, (revision, decision)), entry) in decided.iter().zip(entries) {
            // One that has changed since was reported again, or waits no longer.
            let Some(entry) = entry.filter(|entry| entry.status == JobStatus::Waiting) else { continue };
            if entry.revision != *revision {
                work.arrived.insert(id.clone(), entry.revision);
                continue;
            }
            match decision {
                Decision::Release => released.push(entry),
                Decision::Refuse(reason) => refused.push((entry, reason.clone())),
            }
        }
        // The last look before writing: a process that was suspended in between must not act on an old term.
        if !self.authority.is_valid(BootTime::now()) {
            return Err(DependenciesError::Again("the lead is in doubt".to_owned()));
        }
        let refusals = refused.into_iter().map(|(entry, reason)| self.refuse(entry, reason, now));
        let ended = gather_with_concurrency(refusals, CONCURRENT).await;
        let mut trouble = None;
        for ended in ended {
            match ended {
                // Those that wait for it need not wait for news of it.
                Ok(Some(id)) => work.graph.ended(&id, JobStatus::Cancelled),
                Ok(None) => {}
                Err(error) => trouble = Some(error),
            }
        }
        self.release(released, now).await.and(trouble.map_or(Ok(()), Err))
    }

    /// Lets jobs go: into their queues, or to wait for their time if that is not due.
    async fn release(&self, entries: Vec<ScheduledEntry>, now: Timestamp) -> Result<(), DependenciesError> {
        let mover = self.mover();
        let (timed, due): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| entry.run_at.is_some_and(|at| at > now));
        let waits = timed.into_iter().map(|entry| self.wait_for_time(entry, now));
        let mut trouble = None;
        for waits in gather_with_concurrency(waits, CONCURRENT).await {
            match waits {
                Err(error @ DependenciesError::Again(_)) => trouble = Some(error),
                other => other?,
            }
        }
        let mut promotions = Vec::with_capacity(due.len());
        for entry in due {
            match mover.promotion(&entry) {
                Ok(promotion) => promotions.push(promotion),
                Err(unreadable) => self.unreadable(&entry, unreadable, now).await?,
            }
        }
        if !promotions.is_empty() {
            for promoted in self.jobs.storage().promote(promotions).await {
                match promoted {
                    Ok(Promoted::Done | Promoted::Superseded | Promoted::AlreadyEnded) => {}
                    Err(error) => trouble = Some(DependenciesError::again(&error)),
                }
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Makes a job that waited for others one that waits for its time.
    async fn wait_for_time(&self, entry: ScheduledEntry, now: Timestamp) -> Result<(), DependenciesError> {
        let Some(job) = self.job(&entry, now).await? else { return Ok(()) };
        let scheduled = Entry::new(&job, JobStatus::Scheduled, self.format);
        let scheduled = scheduled.map_err(|error| DependenciesError::Format(error.to_string()))?;
        match self.jobs.storage().reschedule(scheduled, entry.revision).await {
            Ok(()) => Ok(()),
            // Changed by somebody else, and reported again.
            Err(error) if error.kind() == StorageErrorKind::Conflict => Ok(()),
            Err(error) => Err(DependenciesError::again(&error)),
        }
    }

    /// Ends a job that can never start; its id, if this call ended it.
    async fn refuse(
        &self,
        entry: ScheduledEntry,
        reason: Reason,
        now: Timestamp,
    ) -> Result<Option<JobId>, DependenciesError> {
        let Some(job) = self.job(&entry, now).await? else { return Ok(None) };
        let subject = Subject::waiting(&entry, now, self.jobs.storage().info().max_body);
        let error = JobError::new(reason.error_type(), reason.to_string(), now);
        let result = subject.cancelled_result(&job, error);
        let id = entry.address.id.clone();
        tracing::info!(job = %id, %reason, "a job that waited for others is cancelled");
        let unique_key = job.key_freed_at_end();
        let ending = Ending { address: entry.address, result, dead_letter: None, unique_key };
        let ended = self.jobs.storage().end(ending).await;
        let ended = ended.map_err(|error| DependenciesError::again(&error))?;
        Ok((ended == Ended::Done).then_some(id))
    }

    /// The job of an entry; `None` if nobody can read it, which has made it a dead letter.
    async fn job(&self, entry: &ScheduledEntry, now: Timestamp) -> Result<Option<Job>, DependenciesError> {
        match Mover::job(entry) {
            Ok(job) => Ok(Some(job)),
            Err(unreadable) => self.unreadable(entry, unreadable, now).await.map(|()| None),
        }
    }

    async fn unreadable(
        &self,
        entry: &ScheduledEntry,
        unreadable: Unreadable,
        now: Timestamp,
    ) -> Result<(), DependenciesError> {
        match unreadable {
            Unreadable::NotBuilt(text) => Err(DependenciesError::Format(text)),
            Unreadable::Damaged(text) => {
                self.mover().bury(entry, &text, now).await;
                Ok(())
            }
        }
    }

    fn mover(&self) -> Mover<'_> {
        Mover { storage: self.jobs.storage(), format: self.format }
    }
}

impl Work {
    fn arrive(&mut self, some: Vec<WaitingEntry>) {
        self.arrived.extend(some.into_iter().map(|entry| (entry.id, entry.revision)));
    }

    fn hear(&mut self, news: ResultNews) {
        match news {
            ResultNews::Of(id) => {
                self.rumoured.insert(id);
            }
            ResultNews::Lost => self.rumoured.extend(self.graph.all_dependencies()),
        }
    }
}
