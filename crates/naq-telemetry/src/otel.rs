//! OpenTelemetry: spans of this process go to a collector, and traces go through the store with the jobs.
//!
//! Invariant: exporting never blocks or fails a job: spans wait in a bounded buffer for a thread of the SDK, and what is over
//! it or cannot be sent is dropped, with a warning. Who enqueues, each attempt, and what a handler enqueues are one trace,
//! whichever processes they are in.
//!
//! Not here: where spans are opened (naq-services for an enqueue, naq-worker for a run), and what of a trace lies in a job
//! ([`naq_services::trace_context`]).

use std::{collections::BTreeMap, fmt, time::Duration};

use naq_config::TracesConfig;
use naq_services::trace_context::{self, Propagator};
use opentelemetry::{KeyValue, propagation::TextMapPropagator as _, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt as _};
use tracing_subscriber::{Layer as _, filter::Targets, registry::LookupSpan};

use crate::logging::LogLayer;

/// At the end, spans that wait have so long to be sent.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// Where the protocol has its traces, below the collector's address.
const TRACES_PATH: &str = "/v1/traces";
/// Who sends spans, and would send more about sending them.
const NOT_TRACED: [&str; 6] = ["opentelemetry", "hyper", "hyper_util", "reqwest", "h2", "rustls"];

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// `traces.endpoint` is not set.
    #[error("traces.endpoint is not set")]
    NoEndpoint,
    /// The exporter cannot be made of the settings.
    #[error("cannot export traces to {endpoint}")]
    Exporter {
        /// The collector's address, without what may be secret.
        endpoint: String,
        /// What is wrong.
        source: ExporterBuildError,
    },
}

/// Keeps spans being exported. Dropping it sends what waits, for at most 5 s; spans that end later are dropped.
#[must_use = "spans are lost once the guard is dropped"]
pub struct TraceGuard {
    provider: SdkTracerProvider,
}

impl fmt::Debug for TraceGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceGuard").finish_non_exhaustive()
    }
}

impl Drop for TraceGuard {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(CLOSE_LIMIT) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// A layer that exports spans (of level `INFO` and above, a handler's own among them) to `traces.endpoint` by OTLP over
/// HTTP, for [`logging::configure_with`](crate::logging::configure_with) or a subscriber of one's own. From now on traces
/// go [with the jobs](propagate). Keep the guard until the process ends.
///
/// The exporter takes the standard variables `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT`, `OTEL_BSP_*` and
/// `OTEL_RESOURCE_ATTRIBUTES` by itself.
///
/// # Errors
/// See [`TraceError`]. A collector that is not there is no error: spans are dropped until it is.
pub fn layer<S>(config: &TracesConfig) -> Result<(LogLayer<S>, TraceGuard), TraceError>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let endpoint = config.endpoint.as_ref().ok_or(TraceError::NoEndpoint)?;
    // If the program has chosen a provider of TLS already, that one is used.
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(traces_url(endpoint.expose()))
        .build()
        .map_err(|source| TraceError::Exporter { endpoint: endpoint.to_string(), source })?;
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        // Who began a trace has decided whether it is kept.
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample))))
        .build();
    let spans = OpenTelemetryLayer::new(provider.tracer("naq"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false);
    let wanted = Targets::new().with_default(LevelFilter::INFO);
    let wanted = NOT_TRACED.into_iter().fold(wanted, |wanted, target| wanted.with_target(target, LevelFilter::OFF));
    propagate();
    Ok((spans.with_filter(wanted).boxed(), TraceGuard { provider }))
}

fn traces_url(endpoint: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    if endpoint.ends_with(TRACES_PATH) { endpoint.to_owned() } else { format!("{endpoint}{TRACES_PATH}") }
}

/// Lets traces go with the jobs, for a program whose subscriber has a layer of tracing-opentelemetry (the version that
/// [`tracing_opentelemetry`] re-exports): an enqueue hands the trace it is part of to the job, and a run goes on with it.
/// Idempotent.
pub fn propagate() {
    trace_context::set_propagator(W3c::default());
}

/// The version of tracing-opentelemetry that [`propagate`] fits.
pub use tracing_opentelemetry;

/// The trace context of the W3C, between spans of tracing-opentelemetry and texts.
#[derive(Debug, Default)]
struct W3c(TraceContextPropagator);

impl Propagator for W3c {
    fn inject(&self, span: &Span) -> BTreeMap<String, String> {
        let mut carrier = Carrier::default();
        self.0.inject_context(&span.context(), &mut carrier);
        carrier.0.retain(|_, text| !text.is_empty());
        carrier.0
    }

    fn extract(&self, span: &Span, context: BTreeMap<String, String>) {
        // Without a layer, or of a span that nobody wants, there is nothing to tie.
        let _tied = span.set_parent(self.0.extract(&Carrier(context)));
    }

    fn describe(&self, span: &Span, attributes: &[(&'static str, &str)]) {
        for (name, text) in attributes {
            span.set_attribute(*name, (*text).to_owned());
        }
    }
}

/// What is known of a trace, by name.
#[derive(Default)]
struct Carrier(BTreeMap<String, String>);

impl opentelemetry::propagation::Injector for Carrier {
    fn set(&mut self, name: &str, text: String) {
        self.0.insert(name.to_owned(), text);
    }
}

impl opentelemetry::propagation::Extractor for Carrier {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_traces_is_added_once() {
        for (given, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://c.example/otlp", "https://c.example/otlp/v1/traces"),
            ("https://c.example/v1/traces", "https://c.example/v1/traces"),
        ] {
            assert_eq!(traces_url(given), url);
        }
    }
}
