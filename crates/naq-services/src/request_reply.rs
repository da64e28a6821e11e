//! [`RequestReply`]: one question, one answer, over whatever connects the program with other services.
//!
//! Invariant: bounded in time by its caller; at most one answer. Handlers in other languages use it (`nats:`), so that the
//! worker needs to know neither the client nor the connection.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

/// Asks services by subject.
#[async_trait]
pub trait RequestReply: Send + Sync + fmt::Debug + 'static {
    /// Sends `body` to `subject` and waits at most `timeout` for the first answer.
    ///
    /// # Errors
    /// See [`RequestErrorKind`].
    ///
    /// # Cancel safety
    /// Dropping the future stops waiting; the question may have been sent.
    async fn request(&self, subject: &str, body: Bytes, timeout: Duration) -> Result<Bytes, RequestError>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// What happened.
    pub kind: RequestErrorKind,
    /// For people; names the server and never a secret.
    pub message: String,
}

/// See [`RequestError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestErrorKind {
    /// Nobody listens on the subject.
    NoResponder,
    /// No answer in time.
    Timeout,
    /// The question is larger than the server takes.
    TooLarge,
    /// The server cannot be reached, or refused.
    Unreachable,
}
