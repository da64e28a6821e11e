//! The consumer side of naq: workers, handlers, leases, the scheduler loop.
//!
//! Invariant: knows the storage seam and nothing of what is behind it; never depends on naq-queue.

pub mod adjust;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod builtin;
#[cfg(feature = "external")]
pub mod external;
pub mod handler;
pub mod options;
pub mod report;
pub mod scheduler;
pub mod signals;
pub mod worker;

mod burst;
mod cancel;
mod clock;
mod configured;
mod demand;
mod dependencies;
mod due;
mod ending;
mod executor;
mod health;
mod heartbeat;
mod intake;
mod job_log;
mod leader;
mod lease;
mod lock_hold;
mod pace;
mod panic_guard;
mod presence;
mod progress;
mod recurring;
mod serve;
mod settlement;
mod shared;
mod shutdown;
mod suspects;
mod tell;

pub use adjust::{AdjustError, Adjustable, Adjuster};
pub use handler::{ErasedHandler, HandlerRegistry};
pub use health::{Health, NotAlive, NotReady};
pub use leader::Leader;
pub use lock_hold::LockHold;
#[doc(hidden)]
pub use naq_services::__private;
pub use options::{QueueSpec, SchedulerOptions, WorkerOptions};
pub use report::WorkerReport;
pub use scheduler::{Scheduler, SchedulerError};
pub use shutdown::Shutdown;
pub use worker::{BuildError, Worker, WorkerBuilder, WorkerError};
