//! The leader's other loop: recurring jobs.
//!
//! Invariant: the order of writes of a fire is
//! 1. *advance*: the record moves past the due time and holds it in `pending`, in one compare-and-set;
//! 2. *publish*: the run is enqueued under the id made of schedule and due time;
//! 3. *published*: the due time leaves `pending`, by compare-and-set.
//!
//! A leader that dies before 1 has done nothing; between 1 and 2 it leaves a fire that the next leader publishes; between
//! 2 and 3 one that the next leader publishes again, which stores nothing, because the run or its result has the id. Of
//! two leaders, one wins 1. Before 1 and 2 the term is looked at, so that one that was suspended does not act on an
//! old term.
//!
//! Whatever is in `pending` when a record is read is published before anything else. Only what is due is looked at; an
//! `after_completion` schedule waits for the result of its run, pushed by the store. Not here: what a fire is
//! ([`naq_models::schedule`]), the writes themselves ([`SchedulerService`]).

use std::{future::Future, pin::Pin, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use naq_models::{JobId, ScheduleStatus};
use naq_services::{
    Measurement, SchedulerService, SchedulerServiceError, StorageError,
    scheduler::StoredSchedule,
    storage::{Bucket, KvWatch, SharedStorage},
};
use tokio::time::sleep;

use crate::{
    clock::{BootTime, StoreClock},
    leader::Authority,
};

mod agenda;

use agenda::{Agenda, Turn};

/// Schedules that are worked on at once.
const TURNS: usize = 32;
/// Runs whose results are waited for at once; the others take turns.
const WAITS: usize = 256;
/// How long one run is waited for before it is looked for: it may have gone without a result.
const WAIT: Duration = Duration::from_secs(10);
/// The store's clock is asked again when the last answer is older than this.
const CLOCK_AGE: Duration = Duration::from_secs(1);
/// The longest sleep while something will be due: the store's clock may be set meanwhile.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// Pauses after a failure to open the watch grow between these.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

type Working<'a, T> = FuturesUnordered<Pin<Box<dyn Future<Output = T> + Send + 'a>>>;

/// Fires recurring jobs in the name of the leader.
pub(crate) struct Recurring<'a> {
    pub(crate) service: &'a SchedulerService,
    pub(crate) clock: &'a StoreClock,
    pub(crate) authority: Authority,
}

/// Why a schedule is not where it should be. All of it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Service(#[from] SchedulerServiceError),
    #[error("the store cannot be asked")]
    Store(#[source] StorageError),
    #[error("some runs could not be enqueued")]
    Publish(#[source] naq_services::JobServiceError),
}

/// The schedules of a store, but for those that cannot be read.
pub(crate) async fn stored(storage: &SharedStorage) -> Result<Vec<StoredSchedule>, StorageError> {
    let entries = storage.kv_list(Bucket::Schedules, "").await?;
    let readable = entries.iter().filter_map(|entry| match StoredSchedule::read(entry) {
        Ok(stored) => Some(stored),
        Err(error) => {
            tracing::error!(schedule = entry.key, %error, "a schedule cannot be read and does not fire");
            None
        }
    });
    Ok(readable.collect())
}

impl Recurring<'_> {
    /// Fires what is due until it is dropped; ends only if the schedules can never be read.
    ///
    /// # Cancel safety
    /// Cancel safe for the store: see the order of writes above.
    pub(crate) async fn run(&self) -> StorageError {
        let mut pause = PAUSE_MIN;
        loop {
            match self.service.jobs().storage().kv_watch(Bucket::Schedules, "").await {
                Ok(mut watch) => self.follow(&mut *watch).await,
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "the schedules cannot be watched; tries again");
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(error) => return error,
            }
        }
    }

    /// Never ends: a watch outlives its connection.
    async fn follow(&self, watch: &mut dyn KvWatch) {
        let mut agenda = Agenda::default();
        let mut turns: Working<'_, (String, Turn)> = FuturesUnordered::new();
        let mut waits: Working<'_, (String, JobId, u64)> = FuturesUnordered::new();
        loop {
            let now = self.clock.now();
            while turns.len() < TURNS
                && let Some((key, stored)) = agenda.take_due(now)
            {
                turns.push(Box::pin(async move { (key, self.turn(stored).await) }));
            }
            while waits.len() < WAITS
                && let Some((key, run, seen)) = agenda.take_awaited()
            {
                waits.push(Box::pin(async move {
                    let seen = self.wait(&run, seen).await;
                    (key, run, seen)
                }));
            }
            // A part of a millisecond is rounded up: waking just before the time would find nothing.
            let next = agenda.next().map(|next| (next.since(now) + Duration::from_millis(1)).min(LOOK_AROUND));
            // Every branch is cancel safe.
            tokio::select! {
                change = watch.next() => agenda.note(change),
                Some((key, turn)) = turns.next() => agenda.finished(&key, turn, self.clock.now()),
                Some((key, run, seen)) = waits.next() => agenda.awaited(&key, run, seen),
                () = sleep(next.unwrap_or_default()), if next.is_some() && turns.len() < TURNS => {}
                () = self.clock.moved_from(now) => {}
            }
        }
    }

    /// Does what is to be done for one schedule now.
    async fn turn(&self, stored: StoredSchedule) -> Turn {
        let id = stored.record.id.clone();
        match self.steps(stored).await {
            Ok(Some(stored)) => Turn::Stands(Box::new(stored)),
            Ok(None) => Turn::Lost,
            Err(error) => {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(schedule = %id, error = cause, "a schedule could not be moved on; it is tried again");
                self.service.tell_error(&id, &error);
                Turn::Lost
            }
        }
    }

    /// `None` if somebody else changed the schedule, or the term has ended.
    async fn steps(&self, stored: StoredSchedule) -> Result<Option<StoredSchedule>, Trouble> {
        let Some(stored) = self.publish(stored).await? else { return Ok(None) };
        let storage = self.service.jobs().storage();
        let now = self.clock.fresh(&**storage, CLOCK_AGE).await.map_err(Trouble::Store)?;
        if stored.record.status != ScheduleStatus::Active || stored.record.next.is_some_and(|next| next > now) {
            return Ok(Some(stored));
        }
        let last_run = self.service.last_run(&stored.record).await?;
        if !self.leads() {
            return Ok(None);
        }
        match self.service.advance(&stored, now, last_run).await? {
            Some(advanced) => self.publish(advanced).await,
            None => Ok(None),
        }
    }

    /// Publishes what is pending and notes it.
    async fn publish(&self, stored: StoredSchedule) -> Result<Option<StoredSchedule>, Trouble> {
        if stored.record.pending.is_empty() {
            return Ok(Some(stored));
        }
        if !self.leads() {
            return Ok(None);
        }
        let pending = stored.record.pending.clone();
        let published = self.service.publish(&stored.record, &pending).await;
        if let Some(oldest) = published.done.iter().min() {
            let jobs = published.done.len();
            let late = || self.clock.now().since(*oldest);
            self.service.jobs().events().measure(|| Measurement::Fired { jobs, late: late() });
        }
        let noted = self.service.published_from(stored, &published.done).await?;
        published.trouble.map_or(Ok(noted), |error| Err(Trouble::Publish(error)))
    }

    /// The last look before writing.
    fn leads(&self) -> bool {
        self.authority.is_valid(BootTime::now())
    }

    /// Brings every schedule up to now, once, as [`run`](Self::run) would; returns how many of them changed.
    pub(crate) async fn once(&self) -> Result<usize, Trouble> {
        let mut changed = 0;
        for stored in stored(self.service.jobs().storage()).await.map_err(Trouble::Store)? {
            let before = stored.revision;
            // If somebody else has changed it, it is looked at once more.
            let stands = self.steps(stored).await?;
            changed += usize::from(stands.is_none_or(|stands| stands.revision != before));
        }
        Ok(changed)
    }

    /// Waits for a result of `run` newer than `seen`, for a while; returns the newest seen.
    async fn wait(&self, run: &JobId, seen: u64) -> u64 {
        match self.service.jobs().storage().wait_result(run, seen, WAIT).await {
            Ok(result) => result.map_or(seen, |result| result.revision),
            Err(error) => {
                tracing::warn!(job = %run, %error, "the run of a schedule cannot be waited for; tries again");
                sleep(PAUSE_MAX).await;
                seen
            }
        }
    }
}
