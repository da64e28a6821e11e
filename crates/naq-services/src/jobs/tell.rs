//! What the [`JobService`] tells of what it did: events, made only if somebody listens.
//!
//! Invariant: told after the store has it, never before; telling never fails and never waits.

use naq_models::{Event, EventType, JobError, JobId, JobStatus, QueueName, Timestamp, event::EventDetails};

use super::{JobService, Receipt, Result};
use crate::storage::Entry;

impl JobService {
    /// What will be told of each entry of a batch, if it is stored; nothing if nobody listens.
    pub(super) fn to_tell(&self, batch: &[Result<Entry>]) -> Vec<Option<Event>> {
        if !self.events().is_heard() {
            return Vec::new();
        }
        let now = self.host_time();
        batch.iter().map(|entry| entry.as_ref().ok().map(|entry| self.stored(entry, now))).collect()
    }

    fn stored(&self, entry: &Entry, now: Timestamp) -> Event {
        let event_type = match entry.status {
            JobStatus::Waiting => EventType::Waiting,
            JobStatus::Scheduled | JobStatus::Retry => EventType::Scheduled,
            _ => EventType::Enqueued,
        };
        let event = self.events().event(now, event_type);
        let mut event = event.of_job(entry.address.id.clone(), entry.address.queue.clone());
        event.kind = Some(entry.kind.as_str().into());
        event.details.run_at = entry.run_at;
        event
    }

    /// Tells of what was stored of a batch.
    pub(super) fn tell_stored(&self, to_tell: Vec<Option<Event>>, outcomes: &[Result<Receipt>]) {
        let is_new = |outcome: &Result<Receipt>| outcome.as_ref().is_ok_and(|receipt| !receipt.duplicate);
        self.events().emit_all(|| {
            to_tell.into_iter().zip(outcomes).filter_map(|(event, outcome)| event.filter(|_| is_new(outcome))).collect()
        });
    }

    /// Tells of one job that was changed from outside.
    pub(super) fn tell_changed(&self, event_type: EventType, receipt: &Receipt, run_at: Option<Timestamp>) {
        self.events().emit(event_type, |event| {
            let mut event = event.of_job(receipt.job_id.clone(), receipt.queue.clone());
            event.details.run_at = run_at;
            event
        });
    }

    /// Tells of jobs that were cancelled from outside.
    pub(super) fn tell_cancelled(&self, jobs: impl IntoIterator<Item = (JobId, QueueName)>, error: &JobError) {
        self.events().emit_all(|| {
            let now = self.host_time();
            let cancelled =
                |(id, queue)| self.events().event(now, EventType::Cancelled).of_job(id, queue).with_error(error);
            jobs.into_iter().map(cancelled).collect()
        });
    }

    /// Tells of a queue.
    pub(super) fn tell_queue(&self, event_type: EventType, queue: &QueueName, count: Option<u64>) {
        self.events().emit(event_type, |mut event| {
            event.queue = Some(queue.clone());
            event.details = EventDetails { count, ..EventDetails::default() };
            event
        });
    }
}
