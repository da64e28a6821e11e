//! How a check fails: [`Failure`], and the bounded waits that make one.
//!
//! Invariant: no check waits without a bound, and every failure says which line of the suite expected what. Failures are
//! values, not panics, so that a report can show them all.

use std::{
    error::Error,
    fmt,
    future::Future,
    panic::Location,
    time::{Duration, Instant},
};

use crate::storage::StorageError;

/// Why a check failed.
#[derive(Debug)]
pub struct Failure {
    message: String,
    at: &'static Location<'static>,
    source: Option<StorageError>,
}

/// What a check says.
pub type Verdict = Result<(), Failure>;

impl Failure {
    /// A failure at the caller's line.
    #[track_caller]
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::at(Location::caller(), message)
    }

    pub(super) fn at(at: &'static Location<'static>, message: impl Into<String>) -> Self {
        Self { message: message.into(), at, source: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source} ({:?})", source.kind())?;
            let mut cause = Error::source(source);
            while let Some(next) = cause {
                write!(f, ": {next}")?;
                cause = next.source();
            }
        }
        write!(f, " [{}:{}]", self.at.file(), self.at.line())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as &(dyn Error + 'static))
    }
}

impl From<StorageError> for Failure {
    #[track_caller]
    fn from(source: StorageError) -> Self {
        Self { message: "the store failed".into(), at: Location::caller(), source: Some(source) }
    }
}

/// Fails the check unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::storage::conformance::failure::Failure::new(format!($($message)+)));
        }
    };
}

/// Fails the check unless both sides are equal.
macro_rules! ensure_eq {
    ($found:expr, $expected:expr, $($message:tt)+) => {
        match (&$found, &$expected) {
            (found, expected) => {
                if found != expected {
                    let what = format!($($message)+);
                    let text = format!("{what}: found {found:?}, expected {expected:?}");
                    return Err($crate::storage::conformance::failure::Failure::new(text));
                }
            }
        }
    };
}

pub(super) use {ensure, ensure_eq};

/// Awaits a future for at most `limit`.
#[track_caller]
pub(super) fn within<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = T>,
) -> impl Future<Output = Result<T, Failure>> {
    let at = Location::caller();
    async move {
        tokio::time::timeout(limit, future)
            .await
            .map_err(|_| Failure::at(at, format!("no answer within {limit:?}: {what}")))
    }
}

/// Asks again and again until the answer is `true`, for at most `limit`. For what a store may show a little later.
#[track_caller]
pub(super) fn eventually<F>(limit: Duration, what: &str, mut probe: impl FnMut() -> F) -> impl Future<Output = Verdict>
where
    F: Future<Output = Result<bool, Failure>>,
{
    let at = Location::caller();
    async move {
        let begun = Instant::now();
        loop {
            if within(limit, what, probe()).await?? {
                return Ok(());
            }
            if begun.elapsed() > limit {
                return Err(Failure::at(at, format!("not so within {limit:?}: {what}")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
