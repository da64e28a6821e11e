//! Lines about a task that no worker runs: [`task_context`] for a piece of work, [`bind_task!`](super::bind_task) for
//! lines here and there.
//!
//! Invariant: whatever is logged inside carries the task, as in a job's handler. A [`TaskContext`] says how its work ended
//! exactly once, with the time it took. Within a job its lines keep the job's correlation id.

use std::{fmt::Display, future::Future, time::Instant};

use tracing::{Instrument as _, Span};

use super::TASK_SPAN;

/// Logs for one task: each line carries what was bound. Cheap to clone.
///
/// What is logged by `tracing` directly carries it [inside](Self::in_scope), or in a future within its [scope](Self::scope).
#[derive(Debug, Clone)]
pub struct TaskLogger {
    span: Span,
}

impl TaskLogger {
    /// Logs with the fields of this span: for [`bind_task!`](super::bind_task).
    #[must_use]
    pub fn new(span: Span) -> Self {
        Self { span }
    }

    /// The span that carries the fields.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Runs `work`; what it logs carries the task.
    pub fn in_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    /// A future whose lines carry the task, on whichever thread it runs.
    pub fn scope<F: Future>(&self, work: F) -> tracing::instrument::Instrumented<F> {
        work.instrument(self.span.clone())
    }

    /// A line at `DEBUG`.
    pub fn debug(&self, message: impl Display) {
        tracing::debug!(target: "naq::task", parent: &self.span, "{message}");
    }

    /// A line at `INFO`.
    pub fn info(&self, message: impl Display) {
        tracing::info!(target: "naq::task", parent: &self.span, "{message}");
    }

    /// A line at `WARN`.
    pub fn warning(&self, message: impl Display) {
        tracing::warn!(target: "naq::task", parent: &self.span, "{message}");
    }

    /// A line at `ERROR`.
    pub fn error(&self, message: impl Display) {
        tracing::error!(target: "naq::task", parent: &self.span, "{message}");
    }
}

/// Begins a piece of work for a task. The returned context logs its end.
///
/// ```
/// # use naq_telemetry::logging::task_context;
/// # fn process() -> Result<u32, std::io::Error> { Ok(3) }
/// let task = task_context("task-123", "process_data");
/// task.logger().info("starting");
/// let records = task.run(process)?; // logs `finished` or `failed`, with `duration_ms`
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "the work is over when the context is dropped"]
pub fn task_context(task_id: impl Display, operation: impl Display) -> TaskContext {
    // At the level of errors, so that no filter by level takes the task away from its lines.
    let span = tracing::error_span!(target: "naq::task", TASK_SPAN, %task_id, %operation);
    TaskContext { logger: TaskLogger::new(span), since: Instant::now(), state: State::Open }
}

/// A piece of work for a task; see [`task_context`]. Dropping it ends the work.
#[derive(Debug)]
pub struct TaskContext {
    logger: TaskLogger,
    since: Instant,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its owner does the work.
    Open,
    /// Inside [`TaskContext::run`] or [`TaskContext::run_async`].
    Running,
    /// The end is logged.
    Over,
}

impl TaskContext {
    /// Logs lines of this task.
    #[must_use]
    pub fn logger(&self) -> &TaskLogger {
        &self.logger
    }

    /// Does the work, and logs how it ended: `finished` at `INFO`, or `failed` at `ERROR` with the error.
    ///
    /// # Errors
    /// Those of the work.
    pub fn run<T, E: Display>(mut self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.state = State::Running;
        let outcome = self.logger.in_scope(work);
        self.end(&outcome);
        outcome
    }

    /// As [`run`](Self::run), for a future.
    ///
    /// # Errors
    /// Those of the work.
    ///
    /// # Cancel safety
    /// Dropping the future drops the work, and logs that.
    pub async fn run_async<T, E: Display>(mut self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.state = State::Running;
        let outcome = self.logger.scope(work).await;
        self.end(&outcome);
        outcome
    }

    fn end<T, E: Display>(&mut self, outcome: &Result<T, E>) {
        self.state = State::Over;
        let (span, duration_ms) = (self.logger.span(), self.duration_ms());
        match outcome {
            Ok(_) => tracing::info!(target: "naq::task", parent: span, duration_ms, "finished"),
            Err(error) => tracing::error!(target: "naq::task", parent: span, duration_ms, %error, "failed"),
        }
    }

    fn duration_ms(&self) -> f64 {
        super::millis(self.since.elapsed())
    }
}

impl Drop for TaskContext {
    fn drop(&mut self) {
        let (span, duration_ms) = (self.logger.span(), self.duration_ms());
        match self.state {
            State::Over => {}
            _ if std::thread::panicking() => {
                tracing::error!(target: "naq::task", parent: span, duration_ms, "panicked");
            }
            State::Open => tracing::info!(target: "naq::task", parent: span, duration_ms, "finished"),
            State::Running => {
                tracing::warn!(target: "naq::task", parent: span, duration_ms, "stopped before its end");
            }
        }
    }
}

/// Binds fields to a task: a [`TaskLogger`](crate::logging::TaskLogger) whose lines carry them. Fields are written as in
/// `tracing`: `name = value`, `%` for what is displayed, `?` for what is debugged.
///
/// ```
/// # use naq_telemetry::logging::bind_task;
/// let user = 7;
/// let logger = bind_task!("task-456", worker = "worker-1", operation = "enqueue", user_id = user);
/// logger.info("enqueued with context");
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __naq_bind_task {
    ($task_id:expr $(, $($fields:tt)*)?) => {
        $crate::logging::TaskLogger::new($crate::logging::__private::tracing::error_span!(
            target: "naq::task",
            "task",
            task_id = %$task_id,
            $($($fields)*)?
        ))
    };
}
