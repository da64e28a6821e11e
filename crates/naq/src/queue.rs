//! `naq::queue`: everything of `naq_queue`, and the modules and names that NAQ and OmniQ have for it.

pub use naq_queue::*;
#[doc(no_inline)]
pub use naq_queue::{Queue as AsyncTaskQueue, disconnect_sync as close_sync_connections};
#[doc(no_inline)]
pub use naq_services::SchedulerService as ScheduledJobManager;

/// A queue as a value.
pub mod core {
    pub use naq_queue::Queue;
    pub use naq_services::SchedulerService as ScheduledJobManager;
}

/// Recurring jobs.
pub mod scheduled {
    pub use naq_queue::scheduled::*;
    pub use naq_services::SchedulerService as ScheduledJobManager;
}

/// The free functions over the process-wide connection.
pub mod async_api {
    pub use naq_queue::{
        cancel_scheduled_job, enqueue, enqueue_all, enqueue_at, enqueue_in, enqueue_many, modify_scheduled_job,
        pause_scheduled_job, purge_queue, resume_scheduled_job, schedule, trigger_scheduled_job,
    };
}

/// Their blocking twins.
pub mod sync_api {
    pub use naq_queue::{
        cancel_scheduled_job_sync, disconnect_sync as close_sync_connections, enqueue_all_sync, enqueue_at_sync,
        enqueue_in_sync, enqueue_many_sync, enqueue_sync, modify_scheduled_job_sync, pause_scheduled_job_sync,
        purge_queue_sync, resume_scheduled_job_sync, schedule_sync, trigger_scheduled_job_sync,
    };
}
