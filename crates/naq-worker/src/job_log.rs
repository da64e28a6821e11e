//! What is logged of each run: [`JobLog`], the span around a handler and the line at its end.
//!
//! Invariant: whatever a handler logs carries the job's id, attempt and correlation id, and a run that its worker concludes
//! is told of once, with the time it took. Arguments, results and metadata are not logged, but for the correlation id.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, Ordering},
};

use naq_models::{Job, JobError, JobStatus, Next};
use tracing::Span;

use crate::clock::BootTime;

/// A longer correlation id is cut, in characters.
const CORRELATION_ID_MAX: usize = 256;

/// The log of one run.
#[derive(Debug)]
pub(crate) struct JobLog {
    span: Span,
    since: BootTime,
    has_ended: AtomicBool,
}

impl JobLog {
    /// A run begins.
    pub(crate) fn start(job: &Job, worker_id: &str) -> Self {
        // At the level of errors, so that no filter by level takes the job away from its lines. naq-telemetry knows the
        // name and the fields.
        let span = tracing::error_span!(
            "job",
            task_id = %job.id,
            operation = job.kind,
            queue = %job.queue,
            attempt = job.attempt,
            worker = worker_id,
            correlation_id = tracing::field::Empty,
        );
        if !span.is_disabled() {
            span.record("correlation_id", &*printable(job.correlation_id()));
        }
        tracing::debug!(parent: &span, run = job.run, "started");
        Self { span, since: BootTime::now(), has_ended: AtomicBool::new(false) }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// A run has ended, and this is what becomes of its job. A handler that overran its time and was given up may come
    /// back later; only the first end counts.
    pub(crate) fn end(&self, next: &Next) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let _inside = self.span.enter();
        let duration_ms = BootTime::now().since(self.since).as_micros() as f64 / 1e3;
        match next {
            Next::End { status: JobStatus::Completed, .. } => tracing::info!(duration_ms, "completed"),
            Next::End { status: JobStatus::Cancelled, error, .. } => {
                tracing::info!(duration_ms, reason = error.as_ref().map(|error| &*error.message), "cancelled");
            }
            Next::End { error, .. } => {
                let (error_type, error) = told(error.as_ref());
                tracing::error!(duration_ms, error_type, error, "failed");
            }
            Next::Again { job, status: JobStatus::Retry } => {
                let (error_type, error) = told(job.last_error.as_ref());
                tracing::warn!(duration_ms, error_type, error, again_at = again_at(job), "failed, runs again");
            }
            Next::Again { job, .. } => tracing::info!(duration_ms, again_at = again_at(job), "put back"),
        }
    }
}

fn told(error: Option<&JobError>) -> (Option<&str>, Option<&str>) {
    (error.map(|error| &*error.error_type), error.map(|error| &*error.message))
}

fn again_at(job: &Job) -> Option<tracing::field::DisplayValue<naq_models::Timestamp>> {
    job.run_at.map(tracing::field::display)
}

/// A producer may give anything: what is logged and handed to programs is short and has no control characters.
pub(crate) fn printable(id: Cow<'_, str>) -> Cow<'_, str> {
    if id.len() <= CORRELATION_ID_MAX && !id.contains(char::is_control) {
        return id;
    }
    id.chars().take(CORRELATION_ID_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
