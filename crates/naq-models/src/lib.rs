//! The data of naq: jobs, results, errors, states, retry policy and the wire format.
//!
//! Invariant: everything here is a value or a pure function. No I/O, no async runtime, no clock and no randomness: the
//! current time and jitter are arguments, so that every rule can be tested as a table or a property.
//!
//! Not here: where a job is stored, who runs it, and when something is due.

pub mod duration;
pub mod error;
pub mod id;
pub mod job;
pub mod json;
pub mod outcome;
pub mod result;
pub mod retry;
pub mod status;
pub mod time;
pub mod wire;

pub use error::{JobError, error_type};
pub use id::{JobId, NameError, Priority, QueueName};
pub use job::{Job, OnDependencyFailure, Unique, UniqueWhile};
pub use json::RawJson;
pub use outcome::{Next, Verdict};
pub use result::JobResult;
pub use retry::{RetryPolicy, RetryStrategy};
pub use status::JobStatus;
pub use time::Timestamp;
pub use wire::{Address, DecodeError, EncodeError, WireFormat};
