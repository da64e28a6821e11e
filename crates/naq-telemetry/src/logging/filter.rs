//! Which lines are logged: [`Filter`], which can be replaced while the process runs.
//!
//! Invariant: spans of jobs always pass, or a warning would lose its job when the level is `warn`. A filter that cannot be
//! used replaces none.

use std::{borrow::Cow, fmt};

use naq_config::LogFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, filter_fn},
    registry::LookupSpan,
    reload,
};

use super::{JOB_SPAN, LogError, LogLayer, TASK_SPAN, is_naq};

/// Libraries below naq that tell of every message or request at `debug`.
const LIBRARIES: [&str; 5] = ["async_nats", "h2", "hyper_util", "reqwest", "rustls"];

/// The filter of a layer, whatever its subscriber is.
pub(super) struct Filter(Box<dyn Fn(EnvFilter) -> Result<(), LogError> + Send + Sync>);

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

impl Filter {
    pub(super) fn set(&self, level: &LogFilter) -> Result<(), LogError> {
        (self.0)(parse(level)?)
    }
}

/// Puts a filter before a layer.
pub(super) fn filtered<S>(
    level: &LogFilter,
    layer: impl Layer<S> + Send + Sync,
) -> Result<(LogLayer<S>, Filter), LogError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let is_of_a_job = |metadata: &Metadata<'_>| {
        metadata.is_span() && [JOB_SPAN, TASK_SPAN].contains(&metadata.name()) && is_naq(metadata)
    };
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let layer = layer.with_filter(filter.or(filter_fn(is_of_a_job))).boxed();
    let replace = move |filter| handle.reload(filter).map_err(|_| LogError::SubscriberGone);
    Ok((layer, Filter(Box::new(replace))))
}

fn parse(level: &LogFilter) -> Result<EnvFilter, LogError> {
    let level = level.as_str();
    let filter = EnvFilter::builder().parse(with_libraries(level).as_ref());
    filter.map_err(|source| LogError::Filter { level: level.to_owned(), source })
}

/// Who asks for `debug`, and no more, is not asking for a line of each message that a client receives.
fn with_libraries(level: &str) -> Cow<'_, str> {
    match level {
        "debug" | "trace" => {
            let libraries: String = LIBRARIES.iter().map(|name| format!(",{name}=info")).collect();
            Cow::from(format!("{level}{libraries}"))
        }
        _ => Cow::from(level),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_leaves_libraries_at_info() {
        assert!(with_libraries("debug").starts_with("debug,async_nats=info,"));
        for said in ["info", "debug,async_nats=trace", "my_app=debug"] {
            assert_eq!(with_libraries(said), said, "who says more means it");
        }
        parse(&"trace".parse().unwrap()).unwrap();
    }
}
