//! [`JobError`]: what a failed attempt leaves behind.
//!
//! Invariant: exactly six fields on the wire, each of bounded size. `error_type` is the stable name that `retry_on` and
//! `ignore_on` match; the message is for people and is never matched.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The error types that naq itself gives. A handler's own are its own.
pub mod error_type {
    /// The handler panicked.
    pub const PANIC: &str = "panic";
    /// The handler did not end within the job's timeout.
    pub const TIMEOUT: &str = "timeout";
    /// The process that ran the job died too often.
    pub const WORKER_LOST: &str = "worker_lost";
    /// The job or its arguments could not be read.
    pub const DECODE: &str = "decode";
    /// No handler of that kind.
    pub const UNKNOWN_KIND: &str = "unknown_kind";
    /// The result is larger than the store takes.
    pub const RESULT_TOO_LARGE: &str = "result_too_large";
    /// The job was cancelled.
    pub const CANCELLED: &str = "cancelled";
    /// The job was removed from its queue by a purge.
    pub const PURGED: &str = "purged";
    /// A job that it depends on failed or was cancelled.
    pub const DEPENDENCY_FAILED: &str = "dependency_failed";
    /// A job that it depends on does not exist, or its result is not kept any more.
    pub const DEPENDENCY_MISSING: &str = "dependency_missing";
    /// A job that it depends on keeps no result, so that its end cannot be seen.
    pub const NO_RESULT_KEPT: &str = "no_result_kept";
    /// It waits for itself, by way of other jobs.
    pub const DEPENDENCY_CYCLE: &str = "dependency_cycle";
    /// Another job has the unique key of this one.
    pub const REPLACED: &str = "replaced";
    /// An error without a type of its own.
    pub const ERROR: &str = "error";
}

/// Why an attempt failed, or why a job was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// The stable name that `retry_on` and `ignore_on` match; at most [`JobError::MAX_TYPE`] bytes.
    pub error_type: String,
    /// For people; at most [`JobError::MAX_MESSAGE`] bytes.
    pub message: String,
    /// At most [`JobError::MAX_BACKTRACE`] bytes; a child process's last words stand here too.
    pub backtrace: Option<String>,
    /// How many retries came before this attempt: 0 on the first.
    pub retry_count: u32,
    /// Whether the policy allows another attempt after this kind of error (not: whether one is left).
    pub is_retryable: bool,
    /// When it happened.
    pub timestamp: Timestamp,
}

impl JobError {
    /// The longest type kept, in bytes.
    pub const MAX_TYPE: usize = 256;
    /// The longest message kept, in bytes.
    pub const MAX_MESSAGE: usize = 4 * 1024;
    /// The longest backtrace kept, in bytes.
    pub const MAX_BACKTRACE: usize = 16 * 1024;

    /// An error with its texts cut to their bounds.
    #[must_use]
    pub fn new(error_type: impl Into<String>, message: impl Into<String>, timestamp: Timestamp) -> Self {
        Self {
            error_type: cut(error_type.into(), Self::MAX_TYPE),
            message: cut(message.into(), Self::MAX_MESSAGE),
            backtrace: None,
            retry_count: 0,
            is_retryable: true,
            timestamp,
        }
    }

    /// The same error with a backtrace, cut to its bound.
    #[must_use]
    pub fn with_backtrace(mut self, backtrace: impl Into<String>) -> Self {
        self.backtrace = Some(cut(backtrace.into(), Self::MAX_BACKTRACE));
        self
    }

    /// The same error, never to be retried.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.is_retryable = false;
        self
    }
}

/// Cuts a text to at most `max` bytes at a character boundary, and says so at its end.
pub(crate) fn cut(mut text: String, max: usize) -> String {
    const MARK: &str = " … (cut)";
    if text.len() <= max {
        return text;
    }
    let mut end = max - MARK.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push_str(MARK);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn six_fields_on_the_wire() {
        let error = JobError::new("mail", "no route", Timestamp::EPOCH);
        let json = serde_json::to_value(&error).unwrap();
        let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(
            keys,
            ["error_type", "message", "backtrace", "retry_count", "is_retryable", "timestamp"]
                .map(String::from)
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
    }

    proptest! {
        #[test]
        fn texts_stay_within_their_bounds(text in "\\PC{0,3000}") {
            let error = JobError::new(text.clone(), text.clone(), Timestamp::EPOCH);
            prop_assert!(error.error_type.len() <= JobError::MAX_TYPE);
            prop_assert!(error.message.len() <= JobError::MAX_MESSAGE);
            if text.len() <= JobError::MAX_MESSAGE {
                prop_assert_eq!(error.message, text);
            }
        }
    }
}
