//! What is seen of naq from outside: logging; with feature `metrics`, metrics and probes over HTTP; with feature `otel`,
//! traces by OpenTelemetry.
//!
//! Invariant: observing never blocks or fails a job; a log line that cannot be written in time is dropped and counted. This
//! is the only crate that names `tracing-subscriber`, `prometheus-client`, `axum` and `opentelemetry`; everything else only
//! emits `tracing` events, opens spans and tells its event hook.
//!
//! Not here: what is logged, told and measured. The worker opens the span [`logging::JOB_SPAN`] around each run of a handler.

#[cfg(feature = "metrics")]
pub mod http;
pub mod logging;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "otel")]
pub mod otel;
