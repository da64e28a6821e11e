//! What a leader does, in single steps: for tests, which decide themselves when time passes.
//!
//! Invariant: the same moves as leading, made by the same code; nothing is decided here. Needs no term, as every move is
//! guarded by compare-and-set: a leader beside it is not disturbed. Never waits for a time.

use naq_models::{ScheduleStatus, Timestamp};

use naq_services::storage::WaitingEntry;

use super::{BATCH, PIPELINE, Scheduler, SchedulerError};
use crate::{
    clock::StoreClock,
    leader::Authority,
    recurring::{self, Recurring, Trouble},
};

impl Scheduler {
    /// Moves on what is due now, once and without leading: delayed jobs and retries into their queues, recurring jobs to
    /// their next time. Returns how many moved; after 0 there is nothing left to do until the store's time passes or a
    /// job ends. For test kits: programs call [`run`](Self::run).
    ///
    /// # Errors
    /// If the store fails, or holds jobs in a form that this program was not built to read.
    ///
    /// # Cancel safety
    /// Dropping the future is safe for the store.
    pub async fn fire_due(&self) -> Result<usize, SchedulerError> {
        let clock = StoreClock::measured(&*self.storage).await.map_err(SchedulerError::Store)?;
        let authority = Authority::without_end();
        // Everything that `lead_all` does because time has passed or a job has ended, one line each.
        let mut moved = self.fire_waiting(&clock, &authority).await?;
        moved += self.fire_dependants(&clock, &authority).await?;
        moved += self.fire_recurring(&clock, authority).await?;
        Ok(moved)
    }

    /// When [`fire_due`](Self::fire_due) finds something next, as far as it is known now: a recurring job that follows
    /// the end of its run has no time before that.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn next_due(&self) -> Result<Option<Timestamp>, SchedulerError> {
        let store = SchedulerError::Store;
        let waiting = self.storage.open_due_feed().await.map_err(store)?.next_due().await.map_err(store)?;
        let clock = StoreClock::measured(&*self.storage).await.map_err(store)?;
        let dependencies = self.dependencies(&clock, Authority::without_end());
        let missing = dependencies.next_deadline(self.dependants().await?).await?;
        let schedules = recurring::stored(&self.storage).await.map_err(store)?;
        let active = schedules.into_iter().filter(|stored| stored.record.status == ScheduleStatus::Active);
        Ok(active.filter_map(|stored| stored.record.next).chain(waiting).chain(missing).min())
    }

    async fn fire_waiting(&self, clock: &StoreClock, authority: &Authority) -> Result<usize, SchedulerError> {
        let mut feed = self.storage.open_due_feed().await.map_err(SchedulerError::Store)?;
        let mut total = 0;
        loop {
            let now = clock.now();
            let due = feed.due(now, BATCH * PIPELINE).await.map_err(SchedulerError::Store)?;
            let moved = self.fire(due, now, authority).await?;
            if moved == 0 {
                return Ok(total);
            }
            total += moved;
        }
    }

    async fn fire_dependants(&self, clock: &StoreClock, authority: &Authority) -> Result<usize, SchedulerError> {
        let mut total = 0;
        loop {
            // What is decided about one may decide about another.
            let moved = self.dependencies(clock, authority.clone()).once(self.dependants().await?).await?;
            if moved == 0 {
                return Ok(total);
            }
            total += moved;
        }
    }

    /// Everything that waits for other jobs.
    async fn dependants(&self) -> Result<Vec<WaitingEntry>, SchedulerError> {
        let store = SchedulerError::Store;
        let (mut feed, mut all) = (self.storage.open_due_feed().await.map_err(store)?, Vec::new());
        loop {
            let some = feed.waiting(BATCH).await.map_err(store)?;
            if some.is_empty() {
                return Ok(all);
            }
            all.extend(some);
        }
    }

    async fn fire_recurring(&self, clock: &StoreClock, authority: Authority) -> Result<usize, SchedulerError> {
        let recurring = Recurring { service: &self.schedules, clock, authority };
        recurring.once().await.map_err(|trouble| match trouble {
            Trouble::Store(error) => SchedulerError::Store(error),
            Trouble::Service(error) => SchedulerError::Recurring(error),
            Trouble::Publish(error) => SchedulerError::Publish(error),
        })
    }
}
