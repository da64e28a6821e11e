//! Saying what was being done: when it failed, and how long it took.
//!
//! Invariant: nothing here changes an outcome or swallows an error.

use std::{
    error::Error,
    fmt::Display,
    time::{Duration, Instant},
};

/// Logs, when it is dropped, how long an operation took (`duration_ms`, at `INFO`).
#[derive(Debug)]
#[must_use = "the time is taken until it is dropped"]
pub struct Timing {
    operation: String,
    since: Instant,
    threshold: Duration,
}

/// Begins to measure an operation, blocking or not.
///
/// ```
/// # use naq_services::patterns::timing;
/// # use std::time::Duration;
/// fn load() {
///     let _timing = timing("load").above(Duration::from_secs(1)); // a line if it takes longer than a second
///     // …
/// }
/// # load();
/// ```
pub fn timing(operation: impl Into<String>) -> Timing {
    Timing { operation: operation.into(), since: Instant::now(), threshold: Duration::ZERO }
}

impl Timing {
    /// Logs only what takes at least this long.
    pub fn above(mut self, threshold: Duration) -> Self {
        self.threshold = threshold;
        self
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        if took >= self.threshold {
            // Milliseconds with their fraction, as in the lines of jobs.
            let duration_ms = took.as_secs_f64() * 1000.0;
            tracing::info!(operation = %self.operation, duration_ms, "finished");
        }
    }
}

/// Logs the error of an outcome at `ERROR` and passes the outcome on.
///
/// ```
/// # use naq_services::patterns::log_errors;
/// # fn send() -> Result<(), std::io::Error> { Ok(()) }
/// log_errors("send", send())?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// That of the outcome.
pub fn log_errors<T, E: Display>(operation: &str, outcome: Result<T, E>) -> Result<T, E> {
    outcome.inspect_err(|error| tracing::error!(operation, %error, "failed"))
}

/// An error, and what was being done. The error is the [source](Error::source).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}")]
pub struct OperationError<E: Error + 'static> {
    /// What was being done.
    pub operation: String,
    /// What happened.
    pub source: E,
}

/// Adds to the error of an outcome what was being done.
///
/// # Errors
/// That of the outcome, as the source of an [`OperationError`].
pub fn error_context<T, E: Error + 'static>(
    operation: impl Into<String>,
    outcome: Result<T, E>,
) -> Result<T, OperationError<E>> {
    outcome.map_err(|source| OperationError { operation: operation.into(), source })
}

impl<E: crate::JobFailure + 'static> crate::JobFailure for OperationError<E> {
    fn error_type(&self) -> std::borrow::Cow<'static, str> {
        self.source.error_type()
    }

    fn is_retryable(&self) -> bool {
        self.source.is_retryable()
    }

    fn backtrace(&self) -> Option<String> {
        self.source.backtrace()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::Failure;

    #[test]
    fn a_context_keeps_what_policies_ask_of_the_error() {
        let outcome: Result<(), io::Error> = Err(io::Error::other("cable"));
        let error = error_context("send the mail", outcome).unwrap_err();
        let failure = Failure::from(error);
        assert_eq!((failure.error_type.as_ref(), failure.message.as_str()), ("io_error", "send the mail: cable"));
    }
}
