//! What a worker tells of itself and of the jobs it runs: events, made only if somebody listens.
//!
//! Invariant: an end is told after the store has taken it, and once, by whoever settled it. Times are the store's, durations
//! are measured on the monotonic clock. Telling never fails and never waits.

use std::sync::Arc;

use naq_models::{Event, EventType, JobError, JobResult, Progress, ScheduleId, wire};
use naq_services::{Measurement, storage::Action, workers::WorkerStatus};

use crate::{
    clock::BootTime,
    lease::{Held, Run},
    presence::Identity,
    report::Outcome,
    shared::Shared,
    worker::WorkerError,
};

impl Shared {
    fn tell_worker(&self, event_type: EventType, fill: impl FnOnce(Event) -> Event) {
        self.events.emit_at(
            || self.clock.now(),
            event_type,
            |mut event| {
                event.worker_id = Some(Arc::clone(&self.worker_id));
                fill(event)
            },
        );
    }

    pub(crate) fn tell_started(&self, identity: &Identity) {
        self.tell_worker(EventType::WorkerStarted, |mut event| {
            event.details.host = Some(identity.host.as_str().into());
            event.details.pid = Some(std::process::id());
            let queues: Vec<String> = self.queues.iter().map(ToString::to_string).collect();
            event.details.count = Some(self.concurrency() as u64);
            event.with_message(&format!("serves {}", queues.join(", ")))
        });
    }

    pub(crate) fn tell_stopped(&self, started: BootTime) {
        self.tell_worker(EventType::WorkerStopped, |mut event| {
            event.details.duration = Some(BootTime::now().since(started));
            event
        });
    }

    pub(crate) fn tell_error(&self, error: &WorkerError) {
        self.tell_worker(EventType::WorkerError, |event| event.with_message(&error.to_string()));
    }

    /// Tells how busy the worker is; no slots say that it has ended.
    pub(crate) fn measure_slots(&self, slots: usize) {
        self.events.measure(|| Measurement::Slots {
            worker_id: Arc::clone(&self.worker_id),
            slots,
            running: self.leases.running_count(),
        });
    }

    /// Tells that the worker is alive, and whether it has become idle or busy.
    pub(crate) fn tell_alive(&self, before: Option<WorkerStatus>, now: WorkerStatus) {
        self.tell_worker(EventType::WorkerHeartbeat, |event| event);
        if before != Some(now) {
            match now {
                WorkerStatus::Idle => self.tell_worker(EventType::WorkerIdle, |event| event),
                WorkerStatus::Busy => self.tell_worker(EventType::WorkerBusy, |event| event),
                _ => {}
            }
        }
    }

    /// Tells that an attempt begins.
    pub(crate) fn tell_attempt(&self, run: &Run) {
        self.events.emit_at(
            || run.started_at,
            EventType::Started,
            |event| {
                let job = &run.job;
                let mut event = self.of_run(event, run);
                let ready = job.run_at.map_or(job.enqueued_at, |due| due.max(job.enqueued_at));
                event.details.wait = Some(run.started_at.since(ready));
                event
            },
        );
    }

    /// Tells how far a job is.
    pub(crate) fn tell_progress(&self, run: &Run, progress: &Progress) {
        self.events.emit_at(
            || progress.at,
            EventType::Progress,
            |event| {
                let mut event = self.of_run(event, run);
                event.details.fraction = Some(progress.fraction);
                match &progress.message {
                    Some(message) => event.with_message(message),
                    None => event,
                }
            },
        );
    }

    fn of_run(&self, event: Event, run: &Run) -> Event {
        let job = &run.job;
        let mut event = event.of_job(job.id.clone(), job.queue.clone());
        event.kind = Some(job.kind.as_str().into());
        event.attempt = Some(job.attempt);
        event.worker_id = Some(Arc::clone(&self.worker_id));
        event.schedule_id = job.schedule_id.as_ref().and_then(|id| ScheduleId::new(id).ok());
        event
    }

    /// Tells that jobs went back to their queues.
    pub(crate) fn tell_handed_back(&self, released: &[Arc<Held>]) {
        self.events.emit_all(|| {
            let now = self.clock.now();
            let handed_back = move |held: &Arc<Held>| {
                let event = self.events.event(now, EventType::HandedBack);
                let address = &held.claim.address;
                let mut event = event.of_job(address.id.clone(), address.queue.clone());
                event.worker_id = Some(Arc::clone(&self.worker_id));
                event
            };
            released.iter().map(handed_back)
        });
    }

    /// What became of a job that was done with at `at` and is settled now, and the dead letter, if it left one.
    pub(crate) fn settled(&self, held: &Held, action: &Action, outcome: Outcome, at: BootTime) -> [Option<Event>; 2] {
        let event_type = match outcome {
            Outcome::Completed => EventType::Completed,
            Outcome::Failed => EventType::Failed,
            Outcome::Cancelled => EventType::Cancelled,
            Outcome::Retried => EventType::RetryScheduled,
            Outcome::Snoozed => EventType::Snoozed,
            Outcome::AlreadyEnded => return [None, None],
        };
        let time = self.clock.now().saturating_sub(BootTime::now().since(at));
        let event = self.events.event(time, event_type);
        let mut event = match held.run() {
            Some(run) => {
                let mut event = self.of_run(event, run);
                event.details.duration = Some(at.since(run.begun));
                event
            }
            None => {
                let address = &held.claim.address;
                let mut event = event.of_job(address.id.clone(), address.queue.clone());
                event.worker_id = Some(Arc::clone(&self.worker_id));
                event
            }
        };
        let mut dead = None;
        match action {
            Action::End { dead_letter: Some(letter), .. } => {
                event = event.with_error(&letter.error);
                let told = self.events.event(time, EventType::DeadLettered);
                let mut told = told.of_job(letter.address.id.clone(), letter.address.queue.clone());
                (told.kind, told.worker_id) = (event.kind.clone(), event.worker_id.clone());
                dead = Some(told);
            }
            Action::End { result: Some(result), .. } if outcome == Outcome::Cancelled => {
                if let Some(error) = JobResult::decode(&result.body).ok().and_then(|result| result.error) {
                    event = event.with_error(&error);
                }
            }
            Action::End { .. } => {}
            Action::Again(entry) => {
                event.details.run_at = entry.run_at;
                if let Some(error) = last_error(entry).filter(|_| outcome == Outcome::Retried) {
                    event = event.with_error(&error);
                }
            }
        }
        [Some(event), dead]
    }
}

/// Why a job runs again; off the happy path, so that it may be read from what was stored.
fn last_error(entry: &naq_services::storage::Entry) -> Option<JobError> {
    wire::decode(&entry.body, &entry.address).ok()?.last_error
}
