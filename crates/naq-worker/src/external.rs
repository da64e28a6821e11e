//! Handlers in any language: a program per job, long-lived programs, HTTP, NATS request/reply.
//!
//! Invariant: what a handler starts ends with it. Every child leads its own process group; the group is gone before the
//! run's verdict is given, and is killed when the run's future is dropped. What comes from outside (output, replies,
//! response bodies) is bounded by the largest result that the store takes.
//!
//! Not here: the job's timeout, which the executor enforces through the cancellation token; reading the configuration.

use std::{collections::BTreeMap, sync::Arc};

use naq_config::{ExecHandler, ExecProtocol, HandlerConfig};
use naq_services::RequestReply;

use crate::handler::ErasedHandler;

mod exec;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
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
pub const MAX_PROCESSES: u32 = 1024;

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
    Processes(u32),
    /// Not an absolute `http` or `https` URL.
    #[error("{url} is not a URL this worker can call: {reason}")]
    Url {
        /// As it was given; printed without credentials.
        url: naq_config::Url,
        /// Why not.
        reason: String,
    },
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

/// Makes the handlers of a configuration; see [`handler`].
///
/// # Errors
/// The first declaration, by kind, that cannot work.
pub fn handlers(
    declared: &BTreeMap<String, HandlerConfig>,
    connection: Option<&Arc<dyn RequestReply>>,
) -> Result<Vec<Arc<dyn ErasedHandler>>, ExternalError> {
    declared.iter().map(|(kind, config)| handler(kind, config, connection)).collect()
}

/// Makes the handler of a kind. Nothing is started or connected before the first job.
///
/// # Errors
/// If the declaration cannot work; see [`ExternalErrorReason`].
pub fn handler(
    kind: &str,
    config: &HandlerConfig,
    connection: Option<&Arc<dyn RequestReply>>,
) -> Result<Arc<dyn ErasedHandler>, ExternalError> {
    let made: Result<Arc<dyn ErasedHandler>, ExternalErrorReason> = match config {
        HandlerConfig::Exec(program) => match program.protocol {
            ExecProtocol::Once => exec::handler(kind, program.clone()),
            ExecProtocol::Jsonl { processes } => jsonl::handler(kind, program.clone(), processes),
        },
        HandlerConfig::Http(http) => http::handler(kind, http),
        HandlerConfig::Nats(nats) => nats::handler(kind, &nats.subject, connection),
    };
    let made = made.map_err(|reason| ExternalError { handler: kind.to_owned(), reason })?;
    Ok(match config.timeout() {
        Some(limit) => limit::handler(made, limit),
        None => made,
    })
}

fn check_program(program: &ExecHandler) -> Result<(), ExternalErrorReason> {
    if program_name(program).is_empty() { Err(ExternalErrorReason::NoProgram) } else { Ok(()) }
}

fn program_name(program: &ExecHandler) -> &str {
    program.command.first().map_or("", String::as_str)
}
