//! [`CliError`]: every way a command can fail, with its exit code and its hint.
//!
//! Invariant: the exit code follows from the variant alone. The message says what failed; the hint, what to try.

use std::{error::Error, fmt};

use naq_config::ConfigError;
use naq_services::{
    JobServiceError, JobServiceErrorKind, SchedulerServiceError, SchedulerServiceErrorKind, StorageError,
    StorageErrorKind,
    foreign::{ForeignError, ForeignErrorKind},
    manager::{ServiceError, ServiceErrorKind},
    migration::{MigrationError, MigrationErrorKind},
};

/// Exit codes, as documented in `naq --help`.
pub mod exit {
    /// All went well.
    pub const OK: u8 = 0;
    /// The operation failed.
    pub const FAILED: u8 = 1;
    /// The command line or the configuration is wrong.
    pub const USAGE: u8 = 2;
    /// No such job, queue or worker.
    pub const NOT_FOUND: u8 = 3;
    /// The store cannot be reached.
    pub const UNREACHABLE: u8 = 4;
    /// It took too long.
    pub const TIMED_OUT: u8 = 5;
}

/// How a command failed.
#[derive(Debug)]
pub struct CliError {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl CliError {
    /// The operation failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: exit::FAILED, message: message.into(), hint: None }
    }

    /// The command line, the configuration or the input is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: exit::USAGE, message: message.into(), hint: None }
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: exit::NOT_FOUND, message: message.into(), hint: None }
    }

    /// It took too long.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self { code: exit::TIMED_OUT, message: message.into(), hint: None }
    }

    /// Adds what to try.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// What to try.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CliError {}

impl From<StorageError> for CliError {
    fn from(error: StorageError) -> Self {
        Self { code: code_of(error.kind()), hint: error.hint().map(str::to_owned), message: with_sources(&error) }
    }
}

impl From<JobServiceError> for CliError {
    fn from(error: JobServiceError) -> Self {
        let code = match error.kind() {
            JobServiceErrorKind::InvalidJob => exit::USAGE,
            JobServiceErrorKind::NotFound => exit::NOT_FOUND,
            JobServiceErrorKind::TimedOut => exit::TIMED_OUT,
            JobServiceErrorKind::Storage(kind) => code_of(kind),
            _ => exit::FAILED,
        };
        Self { code, hint: error.hint().map(str::to_owned), message: with_sources(&error) }
    }
}

impl From<SchedulerServiceError> for CliError {
    fn from(error: SchedulerServiceError) -> Self {
        let code = match error.kind() {
            SchedulerServiceErrorKind::Invalid => exit::USAGE,
            SchedulerServiceErrorKind::Job(JobServiceErrorKind::InvalidJob) => exit::USAGE,
            SchedulerServiceErrorKind::NotFound => exit::NOT_FOUND,
            SchedulerServiceErrorKind::Storage(kind) => code_of(kind),
            _ => exit::FAILED,
        };
        Self { code, hint: error.hint().map(str::to_owned), message: with_sources(&error) }
    }
}

impl From<ForeignError> for CliError {
    fn from(error: ForeignError) -> Self {
        let code = match error.kind() {
            ForeignErrorKind::Source(kind) | ForeignErrorKind::Destination(kind) => code_of(kind),
            _ => exit::FAILED,
        };
        Self { code, hint: error.hint().map(str::to_owned), message: with_sources(&error) }
    }
}

impl From<MigrationError> for CliError {
    fn from(error: MigrationError) -> Self {
        let code = match error.kind() {
            MigrationErrorKind::SameStore => exit::USAGE,
            MigrationErrorKind::Storage(kind) => code_of(kind),
            _ => exit::FAILED,
        };
        Self { code, hint: error.hint().map(str::to_owned), message: with_sources(&error) }
    }
}

impl From<ServiceError> for CliError {
    fn from(error: ServiceError) -> Self {
        let code = match error.kind() {
            ServiceErrorKind::Storage(kind) => code_of(kind),
            _ => exit::FAILED,
        };
        Self { code, hint: error.hint().map(str::to_owned), message: with_sources(&error) }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self { code: exit::USAGE, hint: None, message: error.to_string() }
    }
}

fn code_of(kind: StorageErrorKind) -> u8 {
    match kind {
        StorageErrorKind::NotFound => exit::NOT_FOUND,
        StorageErrorKind::Unreachable => exit::UNREACHABLE,
        StorageErrorKind::Timeout => exit::TIMED_OUT,
        _ => exit::FAILED,
    }
}

/// The text of an error and its causes, each said once.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
