//! `naq::worker`: everything of `naq_worker`, and the modules and names that NAQ has for it.
//!
//! What NAQ's managers do, naq's services do: nothing tracks the status of jobs beside the store.

#[doc(no_inline)]
pub use naq_services::{
    JobService as FailedJobHandler, JobService as JobStatusManager, WorkerRegistry as WorkerStatusManager,
};
pub use naq_worker::*;

/// The worker.
pub mod core {
    pub use naq_worker::{Worker, WorkerBuilder, WorkerOptions, WorkerReport};
}

/// The list of live workers.
pub mod status {
    pub use naq_services::{
        WorkerInfo, WorkerRegistry, WorkerRegistry as WorkerStatusManager,
        workers::{WorkerStatus, WorkerStatus as WORKER_STATUS},
    };
}

/// Where jobs stand.
pub mod jobs {
    pub use naq_services::{JobService as JobStatusManager, jobs::JobStatusView};
}

/// Dead letters.
pub mod failed {
    pub use naq_services::{JobService as FailedJobHandler, jobs::DeadLetterView};
}
