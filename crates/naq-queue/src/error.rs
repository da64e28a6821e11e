//! [`QueueError`]: why a job could not be handed over or scheduled, or its result not be had.
//!
//! Invariant: callers decide by [`QueueErrorKind`]; the cause is kept as the source.

use std::{borrow::Cow, error::Error, fmt, io};

use naq_config::{ConfigError, NoStateDirectory};
use naq_models::NameError;
use naq_services::{
    JobFailure, JobServiceError, JobServiceErrorKind, SchedulerServiceError, SchedulerServiceErrorKind, ServiceError,
    ServiceErrorKind, StorageError, StorageErrorKind,
};

/// Why a call of this crate failed.
#[derive(Debug)]
pub struct QueueError {
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Config(ConfigError),
    NoStore(NoStateDirectory),
    Name(NameError),
    Thread(io::Error),
    Service(ServiceError),
    Job(JobServiceError),
    Schedule(SchedulerServiceError),
    Storage(StorageError),
}

/// The kinds of failure that a caller can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueErrorKind {
    /// The configuration cannot be read, or names no store.
    Config,
    /// A queue name or job id that is not allowed.
    Name,
    /// The system gives no thread for the connection.
    Thread,
    /// The store cannot be opened.
    Service(ServiceErrorKind),
    /// The call itself failed.
    Job(JobServiceErrorKind),
    /// The call itself failed, and was about a recurring job.
    Schedule(SchedulerServiceErrorKind),
    /// The store failed.
    Storage(StorageErrorKind),
}

impl QueueError {
    pub(crate) fn config(source: ConfigError) -> Self {
        Self { cause: Cause::Config(source) }
    }

    pub(crate) fn no_store(source: NoStateDirectory) -> Self {
        Self { cause: Cause::NoStore(source) }
    }

    pub(crate) fn name(source: NameError) -> Self {
        Self { cause: Cause::Name(source) }
    }

    pub(crate) fn thread(source: io::Error) -> Self {
        Self { cause: Cause::Thread(source) }
    }

    pub(crate) fn service(source: ServiceError) -> Self {
        Self { cause: Cause::Service(source) }
    }

    pub(crate) fn schedule(source: SchedulerServiceError) -> Self {
        Self { cause: Cause::Schedule(source) }
    }

    pub(crate) fn job(source: JobServiceError) -> Self {
        Self { cause: Cause::Job(source) }
    }

    pub(crate) fn storage(source: StorageError) -> Self {
        Self { cause: Cause::Storage(source) }
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> QueueErrorKind {
        match &self.cause {
            Cause::Config(_) | Cause::NoStore(_) => QueueErrorKind::Config,
            Cause::Name(_) => QueueErrorKind::Name,
            Cause::Thread(_) => QueueErrorKind::Thread,
            Cause::Service(source) => QueueErrorKind::Service(source.kind()),
            Cause::Job(source) => QueueErrorKind::Job(source.kind()),
            Cause::Schedule(source) => QueueErrorKind::Schedule(source.kind()),
            Cause::Storage(source) => QueueErrorKind::Storage(source.kind()),
        }
    }

    /// What the user can try, if there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match &self.cause {
            Cause::Service(source) => source.hint(),
            Cause::Job(source) => source.hint(),
            Cause::Schedule(source) => source.hint(),
            Cause::Storage(source) => source.hint(),
            Cause::Config(_) | Cause::NoStore(_) | Cause::Name(_) | Cause::Thread(_) => None,
        }
    }

    fn cause(&self) -> &(dyn Error + 'static) {
        match &self.cause {
            Cause::Config(source) => source,
            Cause::NoStore(source) => source,
            Cause::Name(source) => source,
            Cause::Thread(source) => source,
            Cause::Service(source) => source,
            Cause::Job(source) => source,
            Cause::Schedule(source) => source,
            Cause::Storage(source) => source,
        }
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Thread(_) => f.write_str("cannot start the thread of the connection"),
            _ => fmt::Display::fmt(self.cause(), f),
        }
    }
}

impl Error for QueueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Thread(source) => Some(source),
            // The text of the cause is this error's own.
            _ => self.cause().source(),
        }
    }
}

/// A handler that enqueues by the free functions can give their error on. Only a store that failed is worth another try.
impl JobFailure for QueueError {
    fn error_type(&self) -> Cow<'static, str> {
        "queue_error".into()
    }

    fn is_retryable(&self) -> bool {
        match &self.cause {
            Cause::Job(source) => source.is_transient(),
            Cause::Storage(source) => source.is_transient(),
            Cause::Service(_) | Cause::Schedule(_) | Cause::Thread(_) => true,
            Cause::Config(_) | Cause::NoStore(_) | Cause::Name(_) => false,
        }
    }
}
