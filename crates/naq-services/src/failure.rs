//! What went wrong, as a handler says it: [`Failure`], [`JobFailure`], [`IntoFailure`].
//!
//! Invariant: an error type that implements [`JobFailure`] is asked for its name and whether it may be retried on every
//! way it can leave a handler; no conversion passes it over. Handlers have no clock: a [`Failure`] is stamped when the
//! job is settled (`naq_models::outcome::next`).

use std::{any::type_name, borrow::Cow, error::Error, fmt};

use naq_models::{JobError, Timestamp, error_type};

/// An error that can be sent between threads, of any type.
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// The most sources of an error that its message names; a chain may be cyclic.
const MAX_CHAIN: usize = 32;

/// Says more about an error than [`Error`] does: what policies match and whether a retry makes sense.
///
/// ```
/// # use naq_services::JobFailure;
/// # use std::{borrow::Cow, fmt};
/// #[derive(Debug)]
/// enum MailError { Busy, BadAddress }
/// # impl fmt::Display for MailError { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str("mail") } }
/// # impl std::error::Error for MailError {}
/// impl JobFailure for MailError {
///     fn error_type(&self) -> Cow<'static, str> {
///         match self { Self::Busy => "mail_busy", Self::BadAddress => "bad_address" }.into()
///     }
///     fn is_retryable(&self) -> bool { matches!(self, Self::Busy) }
/// }
/// ```
pub trait JobFailure: Error {
    /// The stable name that `retry_on` and `ignore_on` match. By default the last part of the type's name in snake case
    /// (`MailError` is `mail_error`), which changes when the type is renamed.
    fn error_type(&self) -> Cow<'static, str> {
        type_name_of::<Self>()
    }

    /// Whether another attempt could end better. The job's policy may still forbid it.
    fn is_retryable(&self) -> bool {
        true
    }

    /// Kept with the error, cut to [`JobError::MAX_BACKTRACE`] bytes.
    fn backtrace(&self) -> Option<String> {
        None
    }
}

impl JobFailure for std::io::Error {
    fn error_type(&self) -> Cow<'static, str> {
        "io_error".into()
    }
}

/// A handler that reads the result of another job can give its error on. Only a store that failed is worth another try.
impl JobFailure for crate::ResultError {
    fn error_type(&self) -> Cow<'static, str> {
        "result_error".into()
    }

    fn is_retryable(&self) -> bool {
        self.is_transient()
    }
}

/// A handler that enqueues further jobs can give their error on. Only a store that failed is worth another try.
impl JobFailure for crate::JobServiceError {
    fn error_type(&self) -> Cow<'static, str> {
        "job_service_error".into()
    }

    fn is_retryable(&self) -> bool {
        self.is_transient()
    }
}

impl JobFailure for serde_json::Error {
    fn error_type(&self) -> Cow<'static, str> {
        "json_error".into()
    }
}

/// What went wrong in a handler, in naq's own terms. Any [`JobFailure`], text or boxed error converts into it, also by
/// `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable name that `retry_on` and `ignore_on` match.
    pub error_type: Cow<'static, str>,
    /// For people; cut to [`JobError::MAX_MESSAGE`] bytes when it is stored.
    pub message: String,
    /// Cut to [`JobError::MAX_BACKTRACE`] bytes when it is stored.
    pub backtrace: Option<String>,
    /// Whether another attempt could end better.
    pub is_retryable: bool,
}

impl Failure {
    /// A retryable failure.
    #[must_use]
    pub fn new(error_type: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { error_type: error_type.into(), message: message.into(), backtrace: None, is_retryable: true }
    }

    /// From any error: its type's name, its message and those of its sources. What [`JobFailure`] says of the error is
    /// not asked; use `Failure::from` for an error that implements it.
    #[must_use]
    pub fn from_error<E: Error>(error: &E) -> Self {
        Self::new(type_name_of::<E>(), chain(error))
    }

    /// The same failure, never to be retried.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.is_retryable = false;
        self
    }

    /// The same failure with a backtrace.
    #[must_use]
    pub fn with_backtrace(mut self, backtrace: impl Into<String>) -> Self {
        self.backtrace = Some(backtrace.into());
        self
    }

    /// The stored form, with its texts cut to their bounds and without a time: settling the job sets that.
    #[must_use]
    pub fn into_job_error(self) -> JobError {
        let mut error = JobError::new(self.error_type, self.message, Timestamp::EPOCH);
        error.is_retryable = self.is_retryable;
        match self.backtrace {
            Some(backtrace) => error.with_backtrace(backtrace),
            None => error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error_type, self.message)
    }
}

impl<E: JobFailure> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            error_type: error.error_type(),
            message: chain(&error),
            backtrace: error.backtrace(),
            is_retryable: error.is_retryable(),
        }
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        Self::new(error_type::ERROR, chain(&*error))
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::new(error_type::ERROR, message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::new(error_type::ERROR, message)
    }
}

/// Whatever converts into a [`Failure`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a job",
    label = "not an error naq can store",
    note = "implement `std::error::Error` for it and add `impl naq::JobFailure for {Self} {{}}`",
    note = "or return `Box<dyn Error + Send + Sync>`, `naq::Failure` or `String`"
)]
pub trait IntoFailure {
    /// The failure.
    fn into_failure(self) -> Failure;
}

#[diagnostic::do_not_recommend]
impl<E: Into<Failure>> IntoFailure for E {
    fn into_failure(self) -> Failure {
        self.into()
    }
}

/// The message of an error and of its sources, `outer: inner: innermost`, without repeating a source that the message
/// already ends with (many errors print theirs).
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    for _ in 0..MAX_CHAIN {
        let Some(error) = source else { break };
        let text = error.to_string();
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = error.source();
    }
    message
}

/// `my_crate::MailError<T>` is `mail_error`; what has no name of its own is `error`.
pub(crate) fn type_name_of<E: ?Sized>() -> Cow<'static, str> {
    let path = type_name::<E>();
    let path = path.split('<').next().unwrap_or(path);
    let name = path.rsplit("::").next().unwrap_or(path);
    let is_pointer = matches!(name, "Box" | "Arc" | "Rc");
    if is_pointer || name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return error_type::ERROR.into();
    }
    let chars: Vec<char> = name.chars().collect();
    let mut snake = String::with_capacity(name.len() + 4);
    for (i, c) in chars.iter().enumerate() {
        let starts_word = c.is_uppercase()
            && i > 0
            && (chars[i - 1].is_lowercase()
                || chars[i - 1].is_numeric()
                || chars.get(i + 1).is_some_and(|n| n.is_lowercase()))
            && chars[i - 1] != '_';
        if starts_word {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot send")]
    struct SMTPError2(#[source] Middle);
    #[derive(Debug, thiserror::Error)]
    #[error("no route: {0}")]
    struct Middle(#[source] std::io::Error);

    impl JobFailure for SMTPError2 {
        fn is_retryable(&self) -> bool {
            false
        }
    }

    #[test]
    fn the_chain_names_every_source_once() {
        let error = SMTPError2(Middle(std::io::Error::other("cable")));
        let failure = Failure::from(error);
        assert_eq!(failure.message, "cannot send: no route: cable");
        assert_eq!((failure.error_type.as_ref(), failure.is_retryable), ("smtp_error2", false));
    }

    #[test]
    fn a_cyclic_chain_ends() {
        #[derive(Debug)]
        struct Cycle;
        impl fmt::Display for Cycle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("cycle.")
            }
        }
        impl Error for Cycle {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&Cycle)
            }
        }
        assert_eq!(chain(&Cycle), "cycle.");
    }

    #[test]
    fn type_names_in_snake_case() {
        struct HTTPServerError;
        struct Plain<T>(T);
        assert_eq!(type_name_of::<HTTPServerError>(), "http_server_error");
        assert_eq!(type_name_of::<Plain<Vec<u8>>>(), "plain");
        assert_eq!(type_name_of::<fmt::Error>(), "error");
        assert_eq!(type_name_of::<dyn Error>(), "error");
        assert_eq!(type_name_of::<[u8]>(), "error");
        assert_eq!(type_name_of::<Box<dyn Error>>(), "error");
        let _ = Plain(HTTPServerError).0;
    }
}
