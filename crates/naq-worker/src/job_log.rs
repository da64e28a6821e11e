//! What is logged of each run: [`JobLog`], the span around a handler and the line at its end.
//!
//! Invariant: whatever a handler logs carries the job's id, attempt and correlation id, and a run that its worker concludes
//! is told of once, with the time it took. Arguments, results and metadata are not logged, but for the correlation id.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use naq_models::{Job, JobError, Next, Timestamp};
use naq_services::trace_context;
use tracing::Span;

use crate::report::Outcome;

/// A longer correlation id is cut, in characters.
const CORRELATION_ID_MAX: usize = 256;

/// The log of one run.
#[derive(Debug)]
pub(crate) struct JobLog {
    span: Span,
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
            otel.name = tracing::field::Empty,
            otel.kind = tracing::field::Empty,
            otel.status_description = tracing::field::Empty,
        );
        trace_context::adopt(&span, job);
        if !span.is_disabled() {
            span.record("correlation_id", &*printable(job.correlation_id()));
        }
        tracing::debug!(parent: &span, run = job.run, "started");
        Self { span, has_ended: AtomicBool::new(false) }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// A run has ended after so long, `next` is what becomes of its job, and `outcome` what that comes to: a result that is too large
    /// to be kept is a failure. A handler that overran its time and was given up may come back later; only the first end
    /// counts.
    pub(crate) fn end(&self, next: &End, outcome: Outcome, took: Duration) {
        if self.has_ended.swap(true, Ordering::Relaxed) {
            return;
        }
        let _inside = self.span.enter();
        let duration_ms = took.as_micros() as f64 / 1e3;
        let End { error, again_at } = next;
        let (error_type, error) = error.as_ref().map(|error| (&*error.error_type, &*error.message)).unzip();
        let again_at = again_at.map(tracing::field::display);
        match outcome {
            Outcome::Completed | Outcome::AlreadyEnded => tracing::info!(duration_ms, "completed"),
            Outcome::Cancelled => tracing::info!(duration_ms, reason = error, "cancelled"),
            Outcome::Failed => {
                let error_type = error_type.unwrap_or(naq_models::error_type::RESULT_TOO_LARGE);
                trace_context::failed(&self.span, error.unwrap_or(error_type));
                tracing::error!(duration_ms, error_type, error, "failed");
            }
            Outcome::Retried => {
                trace_context::failed(&self.span, error.unwrap_or_default());
                tracing::warn!(duration_ms, error_type, error, again_at, "failed, runs again");
            }
            Outcome::Snoozed => tracing::info!(duration_ms, again_at, "put back"),
        }
    }
}

/// What is told of a run's end.
pub(crate) struct End {
    error: Option<JobError>,
    again_at: Option<Timestamp>,
}

impl End {
    /// Of what becomes of the job; nothing is copied for one that completed.
    pub(crate) fn of(next: &Next) -> Self {
        match next {
            Next::End { error, .. } => Self { error: error.clone(), again_at: None },
            Next::Again { job, .. } => Self { error: job.last_error.clone(), again_at: job.run_at },
        }
    }
}

/// A producer may give anything: what is logged and handed to programs is short and has no control characters.
pub(crate) fn printable(id: Cow<'_, str>) -> Cow<'_, str> {
    if id.len() <= CORRELATION_ID_MAX && !id.contains(char::is_control) {
        return id;
    }
    id.chars().take(CORRELATION_ID_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
