//! What the [`SchedulerService`] tells of what it did: events, made only if somebody listens.
//!
//! Invariant: told after the store has it; telling never fails and never waits.

use naq_models::{EventType, JobId, ScheduleId, ScheduleRecord, Timestamp};

use super::{Changed, Result, SchedulerService, UpsertOutcome};

impl SchedulerService {
    /// Tells of a schedule.
    pub(super) fn tell(&self, event_type: EventType, record: &ScheduleRecord) {
        self.jobs.events().emit(event_type, |mut event| {
            event.schedule_id = Some(record.id.clone());
            event.kind = Some(record.definition.job.as_job().kind.as_str().into());
            event.queue = Some(record.definition.job.as_job().queue.clone());
            event.details.run_at = record.next;
            event
        });
    }

    pub(super) fn tell_changed(&self, event_type: EventType, changed: Result<Changed>) -> Result<Changed> {
        let changed = changed?;
        if changed.changed {
            self.tell(event_type, &changed.record);
        }
        Ok(changed)
    }

    pub(super) fn tell_defined(&self, outcome: UpsertOutcome, record: &ScheduleRecord) {
        match outcome {
            UpsertOutcome::Created => self.tell(EventType::ScheduleCreated, record),
            UpsertOutcome::Updated => self.tell(EventType::ScheduleModified, record),
            UpsertOutcome::Unchanged => {}
        }
    }

    /// Tells of a run that was enqueued.
    pub(super) fn tell_fired(&self, record: &ScheduleRecord, job: &JobId, due: Timestamp) {
        self.jobs.events().emit(EventType::ScheduleTriggered, |event| {
            let run = record.definition.job.as_job();
            let mut event = event.of_job(job.clone(), run.queue.clone());
            event.schedule_id = Some(record.id.clone());
            event.kind = Some(run.kind.as_str().into());
            event.details.run_at = Some(due);
            event
        });
    }

    /// Tells that a schedule could not be moved on, or a run of it cannot be enqueued.
    pub fn tell_error(&self, id: &ScheduleId, error: &dyn std::error::Error) {
        self.jobs.events().emit(EventType::ScheduleError, |mut event| {
            event.schedule_id = Some(id.clone());
            event.with_message(&error.to_string())
        });
    }
}
