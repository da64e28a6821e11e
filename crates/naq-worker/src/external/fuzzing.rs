//! What other programs answer, for the fuzz targets of `tests/fuzz` (feature `fuzzing`): a process cannot be started for
//! each of a million inputs.
//!
//! Invariant: the handlers' own readers, called as they call them. Not here: processes, connections, and whose job an answer
//! is about.

use naq_models::{RawJson, Verdict};

use super::{
    message::{self, Line, Reply},
    output,
};

/// A line of a `jsonl` handler.
#[derive(Debug)]
pub enum Said {
    /// How far the job is.
    Progress {
        /// Whose job.
        id: Option<String>,
        /// As it was given.
        fraction: f64,
        /// As it was given.
        message: String,
    },
    /// What became of it.
    Reply {
        /// Whose job.
        id: Option<String>,
        /// What it means.
        verdict: Verdict,
    },
}

/// Reads a line of a `jsonl` handler.
///
/// # Errors
/// What is wrong with it, in words.
pub fn line(bytes: &[u8]) -> Result<Said, String> {
    Ok(match Line::parse(bytes)? {
        Line::Progress { id, fraction, message } => Said::Progress { id, fraction, message },
        Line::Reply(reply) => Said::Reply { id: reply.id.clone(), verdict: reply.into_verdict() },
    })
}

/// Reads the reply of a `nats` handler.
///
/// # Errors
/// What is wrong with it, in words.
pub fn reply(bytes: &[u8]) -> Result<Verdict, String> {
    Reply::parse(bytes).map(Reply::into_verdict)
}

/// Reads the output of an `exec` handler that ended well, or the body of a good answer to an `http` one.
#[must_use]
pub fn output(bytes: &[u8]) -> Verdict {
    output::completed(bytes)
}

/// JSON as it is sent to them: on one line.
#[must_use]
pub fn compact(json: &RawJson) -> Vec<u8> {
    message::compact(json.get())
}
