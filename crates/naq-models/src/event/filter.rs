//! [`EventFilter`]: which events somebody wants to see.
//!
//! Invariant: pure; what is not said matches everything, and what is said must all match.

use serde::Serialize;

use super::{Event, EventType};
use crate::{JobId, QueueName, ScheduleId, Timestamp};

/// Which events somebody wants to see.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EventFilter {
    /// Of this job.
    pub job: Option<JobId>,
    /// Of one of these types; all if empty.
    pub types: Vec<EventType>,
    /// Of this queue.
    pub queue: Option<QueueName>,
    /// Of this kind of job.
    pub kind: Option<String>,
    /// Of this worker.
    pub worker: Option<String>,
    /// Of this schedule.
    pub schedule: Option<ScheduleId>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Not after this.
    pub until: Option<Timestamp>,
}

impl EventFilter {
    /// Everything of one job.
    #[must_use]
    pub fn of_job(id: JobId) -> Self {
        Self { job: Some(id), ..Self::default() }
    }

    /// Whether it wants an event.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        fn is<T: PartialEq + ?Sized>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        is(self.job.as_ref(), event.job_id.as_ref())
            && (self.types.is_empty() || self.types.contains(&event.event_type))
            && is(self.queue.as_ref(), event.queue.as_ref())
            && is(self.kind.as_deref(), event.kind.as_deref())
            && is(self.worker.as_deref(), event.worker_id.as_deref())
            && is(self.schedule.as_ref(), event.schedule_id.as_ref())
            && self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time <= until)
    }
}
