//! Traces that go through the store: the W3C trace context of who enqueues a job lies in the job's `meta`, as `traceparent`
//! and `tracestate`, and a run of the job goes on with it.
//!
//! Invariant: without a [`Propagator`] nothing is written, read or opened, and asking costs one load. A context that a caller
//! has put into `meta` stays. It outlives retries with the job: all attempts have one parent.
//!
//! Not here: any library of traces. `naq_telemetry::otel` brings the propagator of OpenTelemetry.

use std::{collections::BTreeMap, fmt, sync::OnceLock};

use naq_models::{Job, RawJson};
use tracing::{Span, field};

/// The names under which a context travels, in `meta` and everywhere.
pub const FIELDS: [&str; 2] = ["traceparent", "tracestate"];

/// Ties spans to texts.
pub trait Propagator: Send + Sync + fmt::Debug + 'static {
    /// Where a span stands, by the names of [`FIELDS`]; nothing if it is part of no trace.
    fn inject(&self, span: &Span) -> BTreeMap<String, String>;

    /// Lets a span, which has not been entered, belong to a context.
    fn extract(&self, span: &Span, context: BTreeMap<String, String>);

    /// Says of a span what the conventions of OpenTelemetry have a name for.
    fn describe(&self, span: &Span, attributes: &[(&'static str, &str)]);
}

static PROPAGATOR: OnceLock<Box<dyn Propagator>> = OnceLock::new();

/// Lets traces go through the store from now on, in this whole process. The first one stays; `false` if there was one.
pub fn set_propagator(propagator: impl Propagator) -> bool {
    PROPAGATOR.set(Box::new(propagator)).is_ok()
}

fn propagator() -> Option<&'static dyn Propagator> {
    PROPAGATOR.get().map(|propagator| &**propagator)
}

/// The context of the span that this is called in, for what a handler calls by itself; nothing without a [`Propagator`].
#[must_use]
pub fn current() -> BTreeMap<String, String> {
    propagator().map(|propagator| propagator.inject(&Span::current())).unwrap_or_default()
}

/// Lets the span of a run go on with the trace of its job. For the worker: the span has fields `otel.name` and
/// `otel.kind`, and has not been entered.
pub fn adopt(span: &Span, job: &Job) {
    let Some(propagator) = propagator().filter(|_| !span.is_disabled()) else { return };
    span.record("otel.kind", "consumer");
    span.record("otel.name", format!("run {}", job.kind));
    let text = |name: &str| serde_json::from_str(job.meta.get(name)?.get()).ok();
    let context = FIELDS.into_iter().filter_map(|name| Some((name.to_owned(), text(name)?)));
    propagator.extract(span, context.collect());
    describe(propagator, span, "process", &[("messaging.message.id", job.id.as_str()), destination(job)]);
}

fn destination(job: &Job) -> (&'static str, &str) {
    ("messaging.destination.name", job.queue.as_str())
}

fn describe(propagator: &dyn Propagator, span: &Span, operation: &str, more: &[(&'static str, &str)]) {
    propagator.describe(span, &[("messaging.system", "naq"), ("messaging.operation.type", operation)]);
    propagator.describe(span, more);
}

/// Notes in the span of a run that it failed. For the worker: the span has a field `otel.status_description`.
pub fn failed(span: &Span, why: &str) {
    if propagator().is_some() {
        span.record("otel.status_description", why);
    }
}

/// One call that enqueues jobs: a span, if traces are followed, that the jobs hang on.
#[derive(Debug)]
pub(crate) struct Sending {
    jobs: usize,
    opened: Option<Opened>,
}

#[derive(Debug)]
struct Opened {
    span: Span,
    context: Vec<(String, RawJson)>,
}

impl Sending {
    /// A call that enqueues so many jobs.
    pub(crate) fn of(jobs: usize) -> Self {
        Self { jobs, opened: None }
    }

    /// The span of the call, which is nothing if no job needs it.
    pub(crate) fn span(&self) -> Span {
        self.opened.as_ref().map_or_else(Span::none, |opened| opened.span.clone())
    }

    /// Gives a job of the call its context, unless it has one.
    pub(crate) fn carry(&mut self, job: &mut Job) {
        let Some(propagator) = propagator().filter(|_| !job.meta.contains_key(FIELDS[0])) else { return };
        let Opened { context, .. } = self.opened.get_or_insert_with(|| open(propagator, self.jobs, job));
        job.meta.extend(context.iter().cloned());
    }
}

/// Opens the span of a call. What it is called has to be known before it begins.
fn open(propagator: &dyn Propagator, jobs: usize, first: &Job) -> Opened {
    let span = tracing::info_span!("enqueue", otel.kind = "producer", otel.name = field::Empty);
    if jobs == 1 {
        span.record("otel.name", format!("enqueue {}", first.kind));
        describe(propagator, &span, "send", &[("messaging.message.id", first.id.as_str()), destination(first)]);
    } else {
        span.record("otel.name", "enqueue many");
        describe(propagator, &span, "send", &[("messaging.batch.message_count", &jobs.to_string())]);
    }
    // A subscriber may not want this span; the one around it is as good.
    let within = if span.is_disabled() { Span::current() } else { span.clone() };
    let json = |(name, text): (String, String)| Some((name, RawJson::from_value(&text).ok()?));
    Opened { context: propagator.inject(&within).into_iter().filter_map(json).collect(), span }
}
