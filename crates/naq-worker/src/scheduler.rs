//! The loop that fires what is due: [`Scheduler`], of which one at a time leads. Recurring jobs are in `recurring`, jobs
//! that wait for others in `dependencies`; both run beside this loop while it leads.
//!
//! Invariant: a due entry enters its queue by compare-and-set on the entry, so that no two leaders fire it twice; before
//! each batch the leader checks that its term still holds; due times are compared with the store's clock. What cannot be
//! read becomes a dead letter, byte for byte. It never runs a job.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use naq_models::{EventType, Timestamp, WireFormat};
use naq_services::{
    EventHook, JobService, JobServiceError, JobSettings, Measurement, SchedulerService, SchedulerServiceError,
    StorageError,
    storage::{DueEntry, DueFeed, Promoted, SharedStorage, WaitingEntry},
};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Health, Shutdown,
    clock::{BootTime, StoreClock},
    dependencies::{Dependencies, DependenciesError},
    due::{Mover, Unreadable},
    leader::{Authority, Candidate, Term},
    options::SchedulerOptions,
    recurring::Recurring,
};

mod steps;

/// Entries per promotion.
const BATCH: usize = 512;
/// Promotions under way at once.
const PIPELINE: usize = 4;
/// The store's clock is asked again when the last answer is older than this.
const CLOCK_AGE: Duration = Duration::from_secs(1);
/// After a round that moved nothing, and after a failure of the store: pauses grow between these.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Items per sweep.
const SWEEP: usize = 1000;
/// Cancels whose callers died are looked for so often.
const ORPHANS_EVERY: Duration = Duration::from_secs(10);

/// Fires due jobs while it leads, stands by while another does.
#[derive(Debug)]
pub struct Scheduler {
    storage: SharedStorage,
    options: SchedulerOptions,
    format: WireFormat,
    candidate: Candidate,
    schedules: SchedulerService,
}

/// Why a scheduler ended before it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchedulerError {
    /// The store failed in a way that waiting does not mend.
    #[error("the scheduler cannot go on")]
    Store(#[source] StorageError),
    /// A recurring job could not be moved on. Only [`Scheduler::fire_due`] ends with this: a leader tries again.
    #[error("a recurring job could not be moved on")]
    Recurring(#[source] SchedulerServiceError),
    /// Runs of a recurring job could not be enqueued. Only [`Scheduler::fire_due`] ends with this.
    #[error("runs of a recurring job could not be enqueued")]
    Publish(#[source] JobServiceError),
    /// Some jobs that wait for others could not be looked at or moved. Only [`Scheduler::fire_due`] ends with this.
    #[error("jobs that wait for others could not be moved on: {0}")]
    Dependencies(String),
    /// Scheduled jobs are stored in bincode, which this program cannot read or write.
    #[error("the scheduler cannot go on: {0}")]
    Format(String),
}

impl From<DependenciesError> for SchedulerError {
    fn from(error: DependenciesError) -> Self {
        match error {
            DependenciesError::Store(error) => Self::Store(error),
            DependenciesError::Format(text) => Self::Format(text),
            DependenciesError::Again(text) => Self::Dependencies(text),
        }
    }
}

/// One look at what is due.
struct Round {
    found: usize,
    moved: usize,
    /// When the next entry is due, if none was.
    next: Option<Timestamp>,
}

/// Why leading ended.
enum Left {
    Asked,
    Deposed,
}

impl Scheduler {
    /// A scheduler that is known as `holder`, which must be unique among all schedulers at all times.
    #[must_use]
    pub fn new(
        storage: SharedStorage,
        holder: impl Into<String>,
        options: SchedulerOptions,
        format: WireFormat,
    ) -> Self {
        let health = Health::new(options.lock_ttl);
        let candidate = Candidate { storage: storage.clone(), holder: holder.into(), ttl: options.lock_ttl, health };
        // The limit is the store's: who defined a schedule has checked its jobs against the configuration.
        let settings = JobSettings { format, max_body: usize::MAX, ..JobSettings::default() };
        let schedules = SchedulerService::new(JobService::new(storage.clone(), settings));
        Self { storage, options, format, candidate, schedules }
    }

    /// The same scheduler, telling what happens.
    #[must_use]
    pub fn with_events(mut self, events: EventHook) -> Self {
        self.schedules = SchedulerService::new(self.schedules.jobs().with_events(events));
        self
    }

    /// Whether it is ready, for probes: it leads or stands by, and has heard from the store within `lock_ttl`. It has no
    /// heartbeat, so it counts as alive as long as the process can say so.
    #[must_use]
    pub fn health(&self) -> Health {
        self.candidate.health.clone()
    }

    fn tell_leader(&self, event_type: EventType) {
        self.schedules.jobs().events().emit(event_type, |mut event| {
            event.worker_id = Some(self.candidate.holder.as_str().into());
            event
        });
    }

    /// Runs until it is asked to stop. Both steps of `shutdown` mean the same here: it stops at once, as moves that are cut
    /// off are finished by the next leader.
    ///
    /// # Errors
    /// If the store fails for good, or holds jobs in a form that this program was not built to read.
    ///
    /// # Cancel safety
    /// Dropping the future is safe for the store; the lock is then not given up but runs out.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<(), SchedulerError> {
        let stop = shutdown.graceful();
        let _health = self.candidate.health.ends();
        let mut pause = PAUSE_MIN;
        loop {
            match self.take_turn(stop).await {
                Ok(Left::Asked) => return Ok(()),
                Ok(Left::Deposed) => pause = PAUSE_MIN,
                Err(SchedulerError::Store(error)) if error.is_transient() => {
                    tracing::warn!(%error, "the scheduler tries again");
                    if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                        return Ok(());
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn take_turn(&self, stop: &CancellationToken) -> Result<Left, SchedulerError> {
        // Made before and kept while another leads: to read a million entries takes longer than a takeover may.
        let mut feed = self.storage.open_due_feed().await.map_err(SchedulerError::Store)?;
        match stop.run_until_cancelled(warmed(&mut *feed)).await {
            Some(warmed) => warmed.map_err(SchedulerError::Store)?,
            None => return Ok(Left::Asked),
        }
        let acquired = tokio::select! {
            term = self.candidate.acquire(stop) => term,
            () = async { loop { feed.changed().await } } => unreachable!("a feed never ends"),
        };
        let Some(mut term) = acquired.map_err(SchedulerError::Store)? else { return Ok(Left::Asked) };
        tracing::info!(holder = self.candidate.holder, term = term.number, "leads the scheduler");
        self.tell_leader(EventType::LeaderElected);
        let left = self.lead_all(&mut term, &mut *feed, stop).await;
        self.tell_leader(EventType::LeaderLost);
        if !matches!(left, Ok(Left::Deposed)) {
            self.candidate.resign(term).await;
        }
        left
    }

    /// Everything that a leader does, side by side.
    async fn lead_all(
        &self,
        term: &mut Term,
        feed: &mut dyn DueFeed,
        stop: &CancellationToken,
    ) -> Result<Left, SchedulerError> {
        let clock = StoreClock::measured(&*self.storage).await.map_err(SchedulerError::Store)?;
        let recurring = Recurring { service: &self.schedules, clock: &clock, authority: term.authority() };
        let dependencies = self.dependencies(&clock, term.authority());
        let (waiting, arrivals) = mpsc::unbounded_channel();
        let authority = term.authority();
        tokio::select! {
            left = self.keep(term, stop) => left,
            error = self.fire_what_is_due(feed, &clock, &authority, waiting) => Err(error),
            error = dependencies.run(arrivals) => Err(error.into()),
            error = recurring.run() => Err(SchedulerError::Store(error)),
            () = self.sweep() => unreachable!("sweeping goes on as long as leading"),
            () = self.finish_orphans() => unreachable!("looking for orphans goes on as long as leading"),
        }
    }

    /// Renews the term until it is lost or given up: beside everything else, so that no long call costs the lead.
    async fn keep(&self, term: &mut Term, stop: &CancellationToken) -> Result<Left, SchedulerError> {
        loop {
            if stop.run_until_cancelled(sleep(self.options.lock_renew_interval)).await.is_none() {
                return Ok(Left::Asked);
            }
            if !self.candidate.renew(term).await.map_err(SchedulerError::Store)? {
                return Ok(Left::Deposed);
            }
        }
    }

    fn dependencies<'a>(&'a self, clock: &'a StoreClock, authority: Authority) -> Dependencies<'a> {
        Dependencies { jobs: self.schedules.jobs(), clock, authority, format: self.format }
    }

    /// Fires delayed jobs and retries, and reports what waits for other jobs; ends only if the store fails.
    async fn fire_what_is_due(
        &self,
        feed: &mut dyn DueFeed,
        clock: &StoreClock,
        authority: &Authority,
        waiting: mpsc::UnboundedSender<Vec<WaitingEntry>>,
    ) -> SchedulerError {
        let mut stalled = PAUSE_MIN;
        loop {
            match self.round(feed, clock, authority, &waiting).await {
                Ok(Round { moved: 1.., .. }) => stalled = PAUSE_MIN,
                Ok(Round { found, next, .. }) => {
                    let mut wait = self.options.scan_interval;
                    if found > 0 {
                        // Nothing could be moved, or the feed has not caught up with what was.
                        wait = wait.min(stalled);
                        stalled = (stalled * 2).min(PAUSE_MAX);
                    } else if let Some(next) = next {
                        // A part of a millisecond is rounded up: waking just before the time would find nothing.
                        wait = wait.min(next.since(clock.now()) + Duration::from_millis(1));
                    }
                    tokio::select! {
                        () = feed.changed() => {}
                        () = sleep(wait) => {}
                    }
                }
                Err(error) => return error,
            }
        }
    }

    async fn round(
        &self,
        feed: &mut dyn DueFeed,
        clock: &StoreClock,
        authority: &Authority,
        waiting: &mpsc::UnboundedSender<Vec<WaitingEntry>>,
    ) -> Result<Round, SchedulerError> {
        let store = SchedulerError::Store;
        loop {
            let some = feed.waiting(BATCH).await.map_err(store)?;
            if some.is_empty() {
                break;
            }
            // The other end is dropped together with this loop.
            waiting.send(some).ok();
        }
        let now = clock.fresh(&*self.storage, CLOCK_AGE).await.map_err(store)?;
        let due = feed.due(now, BATCH * PIPELINE).await.map_err(store)?;
        let found = due.len();
        if found == 0 {
            return Ok(Round { found, moved: 0, next: feed.next_due().await.map_err(store)? });
        }
        // The clock of a host may have been set back since it was last asked.
        let now = clock.measure(&*self.storage).await.map_err(store)?;
        Ok(Round { found, moved: self.fire(due, now, authority).await?, next: None })
    }

    /// Removes what has expired, beside firing; never ends.
    async fn sweep(&self) {
        loop {
            let full = match self.storage.sweep(SWEEP).await {
                Ok(swept) => swept >= SWEEP,
                Err(error) => {
                    tracing::warn!(%error, "sweeping failed");
                    false
                }
            };
            sleep(if full { PAUSE_MIN } else { self.options.sweep_interval }).await;
        }
    }

    /// Finishes the cancels of callers that died, beside firing; never ends.
    async fn finish_orphans(&self) {
        loop {
            if let Err(error) = self.storage.finish_orphans(SWEEP).await {
                tracing::warn!(%error, "orphaned cancels could not be finished");
            }
            sleep(ORPHANS_EVERY).await;
        }
    }

    /// Moves what is due; returns how many entries left the scheduled store.
    async fn fire(&self, due: Vec<DueEntry>, now: Timestamp, authority: &Authority) -> Result<usize, SchedulerError> {
        let batches: Vec<Vec<DueEntry>> = due.chunks(BATCH).map(<[DueEntry]>::to_vec).collect();
        let mut moving =
            stream::iter(batches).map(|batch| self.fire_batch(batch, now, authority)).buffer_unordered(PIPELINE);
        let mut moved = 0;
        while let Some(batch) = moving.next().await {
            moved += batch?;
        }
        Ok(moved)
    }

    async fn fire_batch(
        &self,
        due: Vec<DueEntry>,
        now: Timestamp,
        authority: &Authority,
    ) -> Result<usize, SchedulerError> {
        let begun = BootTime::now();
        let ids: Vec<_> = due.into_iter().map(|entry| entry.id).collect();
        let entries = self.storage.get_scheduled(&ids).await.map_err(SchedulerError::Store)?;
        let mover = Mover { storage: &self.storage, format: self.format };
        let (mut promotions, mut moved) = (Vec::with_capacity(entries.len()), 0);
        let mut oldest: Option<Timestamp> = None;
        for entry in entries.into_iter().flatten().filter(|entry| entry.run_at.is_some_and(|at| at <= now)) {
            match mover.promotion(&entry) {
                Ok(promotion) => {
                    oldest = oldest.into_iter().chain(entry.run_at).min();
                    promotions.push(promotion);
                }
                Err(Unreadable::NotBuilt(text)) => return Err(SchedulerError::Format(text)),
                Err(Unreadable::Damaged(text)) => moved += usize::from(mover.bury(&entry, &text, now).await),
            }
        }
        // The last look before writing: a process that was suspended in between must not act on an old term.
        if promotions.is_empty() || !authority.is_valid(BootTime::now()) {
            return Ok(moved);
        }
        let (mut trouble, mut fired) = (None, 0);
        for promoted in self.storage.promote(promotions).await {
            match promoted {
                Ok(Promoted::Done) => fired += 1,
                Ok(Promoted::AlreadyEnded) => moved += 1,
                Ok(Promoted::Superseded) => {}
                Err(error) => trouble = Some(error),
            }
        }
        if let Some(error) = trouble {
            tracing::warn!(%error, "due jobs could not be moved to their queues; they stay due");
        }
        if let (1.., Some(oldest)) = (fired, oldest) {
            let late = || now.since(oldest) + BootTime::now().since(begun);
            self.schedules.jobs().events().measure(|| Measurement::Fired { jobs: fired, late: late() });
        }
        Ok(moved + fired)
    }
}

/// Returns when a feed has everything that waits.
async fn warmed(feed: &mut dyn DueFeed) -> Result<(), StorageError> {
    loop {
        match feed.next_due().await {
            Ok(_) => return Ok(()),
            // The feed goes on where it was: a store with very many entries may take its time before the first.
            Err(error) if error.is_transient() => tracing::debug!(%error, "what waits is not known yet"),
            Err(error) => return Err(error),
        }
    }
}
