//! Handlers in any language: a program per job, long-lived programs, HTTP, NATS request/reply.
//!
//! Invariant: what a handler starts ends with it. Every child leads its own process group; the group is gone before the
//! run's verdict is given, and is killed when the run's future is dropped. What comes from outside (output, replies,
//! response bodies) is bounded by the largest result that the store takes.
//!
//! Not here: the job's timeout, which the executor enforces through the cancellation token; reading the configuration.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use naq_services::RequestReply;

use crate::handler::ErasedHandler;

mod exec;
mod group;
mod http;
mod jsonl;
mod limit;
mod message;
mod nats;
mod output;

/// The last words of a program that are kept with an error, in bytes.
pub const STDERR_TAIL: usize = 8 * 1024;
/// The most long-lived processes of one handler.
pub const MAX_PROCESSES: usize = 1024;

/// A program and how it is started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// The program and its arguments; no shell takes part. Looked up in `PATH` if it has no slash.
    pub argv: Vec<String>,
    /// Added to the worker's environment.
    pub env: BTreeMap<String, String>,
    /// Where it runs; the worker's directory if `None`.
    pub cwd: Option<PathBuf>,
}

/// A handler that is not written in Rust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExternalSpec {
    /// One process per job: arguments on stdin, result on stdout.
    Exec(Program),
    /// Long-lived processes that answer one JSON line to one JSON line.
    Jsonl {
        /// What to start.
        program: Program,
        /// How many at most, 1 to [`MAX_PROCESSES`]. Each is started when it is first needed.
        processes: usize,
    },
    /// An HTTP request per job.
    Http {
        /// Where to: `http://` or `https://`.
        url: String,
        /// `POST` and the like.
        method: String,
    },
    /// A NATS request per job.
    Nats {
        /// Where to.
        subject: String,
    },
}

/// Why a declared handler cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("handler {handler:?}: {reason}")]
pub struct ExternalError {
    /// The kind it was declared for.
    pub handler: String,
    /// What is wrong with it.
    pub reason: ExternalErrorReason,
}

/// See [`ExternalError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExternalErrorReason {
    /// The list is empty, or the program's name is.
    #[error("`exec` names no program; write a list, for example [\"python3\", \"resize.py\"]")]
    NoProgram,
    /// Zero, or more than [`MAX_PROCESSES`].
    #[error("processes = {0} is not allowed: 1 to {MAX_PROCESSES}")]
    Processes(usize),
    /// Not an absolute `http` or `https` URL.
    #[error("{url:?} is not a URL this worker can call: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Not an HTTP method.
    #[error("{0:?} is not an HTTP method")]
    Method(String),
    /// No HTTP client can be made on this host (no trusted certificates, for example).
    #[error("no HTTP client can be made here: {0}")]
    Client(String),
    /// Empty, or with wildcards, blanks or empty parts.
    #[error("{0:?} is not a subject to send requests to")]
    Subject(String),
    /// The worker is not connected with NATS.
    #[error("`nats` needs a NATS connection; this worker's store is not NATS")]
    NoConnection,
}

impl ExternalSpec {
    /// Makes the handler of `kind`. Nothing is started or connected before the first job. `limit` cuts a run short where
    /// it is less than the job's own timeout.
    ///
    /// # Errors
    /// If the declaration cannot work; see [`ExternalErrorReason`].
    pub fn build(
        self,
        kind: &str,
        connection: Option<&Arc<dyn RequestReply>>,
        limit: Option<Duration>,
    ) -> Result<Arc<dyn ErasedHandler>, ExternalError> {
        let made: Result<Arc<dyn ErasedHandler>, ExternalErrorReason> = match self {
            Self::Exec(program) => exec::handler(kind, program),
            Self::Jsonl { program, processes } => jsonl::handler(kind, program, processes),
            Self::Http { url, method } => http::handler(kind, &url, &method),
            Self::Nats { subject } => nats::handler(kind, subject, connection),
        };
        let made = made.map_err(|reason| ExternalError { handler: kind.to_owned(), reason })?;
        Ok(match limit {
            Some(limit) => limit::limited(made, limit),
            None => made,
        })
    }
}

impl Program {
    fn check(&self) -> Result<(), ExternalErrorReason> {
        match self.argv.first() {
            Some(name) if !name.is_empty() => Ok(()),
            _ => Err(ExternalErrorReason::NoProgram),
        }
    }

    fn name(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}
