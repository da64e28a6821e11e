//! What the [`JobService`] tells of what it did: events, made only if somebody listens.
//!
//! Invariant: told after the store has it, never before; telling never fails and never waits.

use std::sync::Arc;

use naq_models::{EventType, JobError, JobId, JobStatus, QueueName, Timestamp, event::EventDetails};

use super::{JobService, Receipt, Result};
use crate::storage::Entry;

/// What is to be told of a job once the store has it: small, because very many may wait for that.
#[derive(Debug)]
pub(super) struct Untold {
    time: Timestamp,
    event_type: EventType,
    job_id: JobId,
    queue: QueueName,
    kind: Arc<str>,
    run_at: Option<Timestamp>,
}

impl JobService {
    /// What will be told of each entry of a batch, if it is stored; nothing if nobody listens.
    pub(super) fn to_tell(&self, batch: &[Result<Entry>]) -> Vec<Option<Untold>> {
        if !self.events().is_heard() {
            return Vec::new();
        }
        let time = self.host_time();
        // Most jobs of a batch are of one kind.
        let mut kind: Arc<str> = "".into();
        let mut untold = |entry: &Entry| {
            if *kind != *entry.kind {
                kind = entry.kind.as_str().into();
            }
            let event_type = match entry.status {
                JobStatus::Waiting => EventType::Waiting,
                JobStatus::Scheduled | JobStatus::Retry => EventType::Scheduled,
                _ => EventType::Enqueued,
            };
            let (job_id, queue) = (entry.address.id.clone(), entry.address.queue.clone());
            Untold { time, event_type, job_id, queue, kind: Arc::clone(&kind), run_at: entry.run_at }
        };
        batch.iter().map(|entry| entry.as_ref().ok().map(&mut untold)).collect()
    }

    /// Tells of what was stored.
    pub(super) fn tell_stored(&self, untold: Vec<Untold>) {
        self.events().emit_all(|| {
            untold.into_iter().map(|Untold { time, event_type, job_id, queue, kind, run_at }| {
                let mut event = self.events().event(time, event_type).of_job(job_id, queue);
                event.kind = Some(kind);
                event.details.run_at = run_at;
                event
            })
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
                move |(id, queue)| self.events().event(now, EventType::Cancelled).of_job(id, queue).with_error(error);
            jobs.into_iter().map(cancelled)
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
