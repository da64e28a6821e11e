//! Logging for naq: formats, files, and the fields that tie a line to its job.
//!
//! Invariant: logging never blocks or fails a job; what cannot be written in time is dropped and counted. This is the
//! only crate that names `tracing-subscriber`; everything else only emits `tracing` events.
//!
//! Not here: what is logged. The worker opens the span [`logging::JOB_SPAN`] around each run of a handler.

pub mod logging;
