//! `naq::models`: everything of `naq_models`, and the modules and names that NAQ and OmniQ have for it.

pub use naq_models::*;
#[doc(no_inline)]
pub use naq_models::{
    Event as JobEvent, Event as WorkerEvent, EventType as JobEventType, EventType as WorkerEventType, Job as Task,
    JobResult as TaskResult, JobStatus as JOB_STATUS, JobStatus as TaskStatus,
    retry::{RETRY_STRATEGIES as VALID_RETRY_STRATEGIES, RetryDelays as RetryDelayType},
};

/// Jobs, results and their retry policy.
pub mod jobs {
    pub use naq_models::{Job, JobResult, RetryPolicy, retry::RetryDelays as RetryDelayType};
}

/// States, kinds of events and strategies.
pub mod enums {
    pub use naq_models::{
        EventType as JobEventType, EventType as WorkerEventType, JobStatus, JobStatus as JOB_STATUS, RetryStrategy,
        RetryStrategy as RETRY_STRATEGY, ScheduleStatus, ScheduleStatus as SCHEDULED_JOB_STATUS,
        retry::{RETRY_STRATEGIES as VALID_RETRY_STRATEGIES, RetryDelays as RetryDelayType},
    };
}

/// What happened to jobs, workers and schedules.
pub mod events {
    pub use naq_models::{
        Event, Event as JobEvent, Event as WorkerEvent, EventDetails, EventFilter, EventType,
        EventType as JobEventType, EventType as WorkerEventType,
    };
}

/// Recurring jobs.
pub mod schedules {
    pub use naq_models::{Schedule, ScheduleDefinition, ScheduleId, ScheduleRecord, ScheduleStatus};
}
