//! [`ScheduleView`]: a schedule as `naq scheduler jobs` and `show` print it.
//!
//! Invariant: pure; every field is there always, in this order, so that programs can rely on it.

use naq_models::{JobId, QueueName, ScheduleDefinition, ScheduleId, ScheduleRecord, ScheduleStatus, Timestamp};
use serde::Serialize;

use super::declared;

/// A schedule as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScheduleView {
    /// Its id.
    pub schedule_id: ScheduleId,
    /// Where it stands.
    pub status: ScheduleStatus,
    /// The kind of its jobs.
    pub kind: String,
    /// Their queue.
    pub queue: QueueName,
    /// The next due time, if it is known.
    pub next: Option<Timestamp>,
    /// How many runs the timing has fired.
    pub runs: u64,
    /// How many due times did not run.
    pub skipped: u64,
    /// Runs that are recorded and wait for being enqueued.
    pub pending: usize,
    /// The latest due time of a run.
    pub last_due: Option<Timestamp>,
    /// The run that was recorded last.
    pub last_run_id: Option<JobId>,
    /// When it was defined.
    pub created_at: Timestamp,
    /// When it was last changed by a person.
    pub updated_at: Timestamp,
    /// Whether a configuration declares it.
    pub from_config: bool,
    /// What it was defined as.
    pub definition: ScheduleDefinition,
}

impl From<&ScheduleRecord> for ScheduleView {
    fn from(record: &ScheduleRecord) -> Self {
        let job = record.definition.job.as_job();
        Self {
            schedule_id: record.id.clone(),
            status: record.status,
            kind: job.kind.clone(),
            queue: job.queue.clone(),
            next: record.next,
            runs: record.runs,
            skipped: record.skipped,
            pending: record.pending.len(),
            last_due: record.last_due,
            last_run_id: record.last_run_id.clone(),
            created_at: record.created_at,
            updated_at: record.updated_at,
            from_config: declared::is_declared(record),
            definition: record.definition.clone(),
        }
    }
}
