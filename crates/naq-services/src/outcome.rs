//! What a handler returns: [`Outcome`], and [`JobReturn`] for everything that can become a [`Verdict`].
//!
//! Invariant: a value is serialized here, in the handler's own task, so that a value whose `Serialize` fails ends its own
//! job and nothing else. What follows from a verdict is decided in `naq_models::outcome`.

use std::time::Duration;

use naq_models::{RawJson, Verdict};
use serde::Serialize;

use crate::failure::{Failure, IntoFailure};

/// The error type of a value whose `Serialize` fails.
pub const ENCODE: &str = "encode";

/// How one run of a job ended, said explicitly.
///
/// A handler returns `T`, `Result<T, E>`, `Outcome<T>` or `Result<Outcome<T>, E>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Done, with this result.
    Complete(T),
    /// Run it again after this time. No attempt is counted.
    Snooze(Duration),
    /// It failed; run it again after the given time (the job's own delay if `None`), as long as retries are left.
    Retry {
        /// Overrides the job's delay.
        after: Option<Duration>,
        /// What went wrong.
        error: Failure,
    },
    /// It failed for good, whatever the job's policy says.
    Fail(Failure),
    /// It is not to be done any more, for this reason.
    Cancel(String),
}

impl<T> Outcome<T> {
    /// [`Outcome::Fail`] from anything that is a failure.
    pub fn fail(error: impl IntoFailure) -> Self {
        Self::Fail(error.into_failure())
    }

    /// [`Outcome::Retry`] after a time, from anything that is a failure.
    pub fn retry_after(after: Duration, error: impl IntoFailure) -> Self {
        Self::Retry { after: Some(after), error: error.into_failure() }
    }

    /// [`Outcome::Cancel`].
    pub fn cancel(reason: impl Into<String>) -> Self {
        Self::Cancel(reason.into())
    }
}

/// What a hand-registered handler may return. `#[naq::job]` functions may return any `Serialize` type as well.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "not a result naq can store",
    note = "return `Result<T, E>`, `Outcome<T>` or `Result<Outcome<T>, E>`, where `T` implements `Serialize`; \
            numbers, texts, lists and `()` may be returned as they are"
)]
pub trait JobReturn {
    /// The value of a completed job.
    type Value;

    /// What the executor works with.
    fn into_verdict(self) -> Verdict;
}

impl<T: Serialize> JobReturn for Outcome<T> {
    type Value = T;

    fn into_verdict(self) -> Verdict {
        outcome_verdict(self)
    }
}

impl<T: Serialize, E: IntoFailure> JobReturn for Result<T, E> {
    type Value = T;

    fn into_verdict(self) -> Verdict {
        match self {
            Ok(value) => complete(&value),
            Err(error) => failed(error.into_failure()),
        }
    }
}

// `Outcome` does not implement `Serialize` and never may: that keeps this from overlapping with the one above.
impl<T: Serialize, E: IntoFailure> JobReturn for Result<Outcome<T>, E> {
    type Value = T;

    fn into_verdict(self) -> Verdict {
        match self {
            Ok(outcome) => outcome_verdict(outcome),
            Err(error) => failed(error.into_failure()),
        }
    }
}

macro_rules! plain {
    ($({$($generic:tt)*} $type:ty),* $(,)?) => {$(
        impl<$($generic)*> JobReturn for $type {
            type Value = Self;

            fn into_verdict(self) -> Verdict {
                complete(&self)
            }
        }
    )*};
}

plain! {
    {} (), {} bool, {} u8, {} u16, {} u32, {} u64, {} usize, {} i8, {} i16, {} i32, {} i64, {} isize, {} f32, {} f64,
    {} String, {} RawJson, {} serde_json::Value, {T: Serialize} Vec<T>, {T: Serialize} Option<T>,
}

/// The verdict on a completed run.
pub(crate) fn complete<T: Serialize + ?Sized>(value: &T) -> Verdict {
    match RawJson::from_value(value) {
        Ok(json) => Verdict::Complete(json),
        Err(error) => {
            let message = format!("the result cannot be written as JSON: {error}");
            Verdict::Fail(Failure::new(ENCODE, message).permanent().into_job_error())
        }
    }
}

/// The verdict on a run that failed; the job's policy decides what follows.
pub(crate) fn failed(failure: Failure) -> Verdict {
    Verdict::Error(failure.into_job_error())
}

pub(crate) fn outcome_verdict<T: Serialize>(outcome: Outcome<T>) -> Verdict {
    match outcome {
        Outcome::Complete(value) => complete(&value),
        Outcome::Snooze(delay) => Verdict::Snooze(delay),
        Outcome::Retry { after, error } => Verdict::Retry { after, error: error.into_job_error() },
        Outcome::Fail(error) => Verdict::Fail(error.into_job_error()),
        Outcome::Cancel(reason) => Verdict::Cancel(reason),
    }
}
