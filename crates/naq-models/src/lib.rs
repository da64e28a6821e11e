//! The data of naq: jobs, results, errors, events, states, retry policy, schedules and the wire format.
//!
//! Invariant: everything here is a value or a pure function. No I/O, no async runtime, no clock and no randomness: the
//! current time and jitter are arguments, so that every rule can be tested as a table or a property.
//!
//! Not here: where a job is stored, who runs it, and who looks at the clock. [`schedule`] says when a recurring job is due;
//! the rules of the time zones are compiled in.

pub mod duration;
pub mod error;
pub mod event;
pub mod id;
pub mod job;
pub mod json;
pub mod outcome;
pub mod progress;
pub mod result;
pub mod retry;
pub mod schedule;
pub mod status;
pub mod time;
pub mod unique;
pub mod wire;

pub use error::{JobError, error_type};
pub use event::{Event, EventDetails, EventFilter, EventId, EventType};
pub use id::{JobId, NameError, Priority, QueueName, ScheduleId};
pub use job::{Job, OnDependencyFailure, Unique, UniqueWhile};
pub use json::RawJson;
pub use outcome::{Next, Verdict};
pub use progress::Progress;
pub use result::JobResult;
pub use retry::{RetryPolicy, RetryStrategy};
pub use schedule::{
    JobTemplate, Missed, Overlap, Schedule, ScheduleDefinition, ScheduleError, ScheduleRecord, ScheduleStatus, Timing,
};
pub use status::JobStatus;
pub use time::Timestamp;
pub use unique::{OnConflict, UniqueError, UniqueHolder};
pub use wire::{Address, DecodeError, EncodeError, WireFormat};
