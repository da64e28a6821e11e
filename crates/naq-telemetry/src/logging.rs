//! Turning `tracing` events into lines: text for a person, JSON for a collector, on stderr or in a file.
//!
//! Invariant: inside the span [`JOB_SPAN`] every line carries the job's id, attempt and kind, at any log level. A user's
//! own subscriber is never replaced: either [`configure`] installs one, or [`layer`] joins theirs.
//!
//! Not here: rotation of files.

mod background;
mod json;

use std::{
    fs,
    io::{self, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use naq_config::LoggingConfig;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    registry::{LookupSpan, Registry},
    util::SubscriberInitExt as _,
};

use self::background::Background;
use self::json::JsonLines;

/// The span around a handler's run. Open it with `job_id`, `attempt` and `kind`, and `worker`, `queue` or
/// `correlation_id` where known:
/// `tracing::info_span!("job", job_id = %id, attempt, kind)`.
pub const JOB_SPAN: &str = "job";

/// Why lines cannot be logged as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// `logging.level` is not a filter.
    #[error("logging.level {level:?} is not a filter")]
    Filter {
        /// The setting.
        level: String,
        /// Where it goes wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The log file cannot be opened.
    #[error("cannot open the log file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The thread that writes lines cannot be started.
    #[error("cannot start the thread that writes log lines")]
    Thread(#[source] io::Error),
    /// The process has a subscriber already; add [`layer`] to it instead.
    #[error("the process already has a tracing subscriber; add naq_telemetry::logging::layer to it instead")]
    SubscriberExists,
}

/// Keeps lines being written. Dropping it writes what is buffered, for at most 5 s; lines logged later are dropped.
#[must_use = "log lines are lost once the guard is dropped"]
#[derive(Debug, Default)]
pub struct LogGuard {
    background: Option<Background>,
}

impl LogGuard {
    /// Lines that were dropped because they came faster than they could be written, or because writing failed.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.background.as_ref().map_or(0, Background::dropped)
    }
}

/// A boxed layer, as [`layer`] returns it.
pub type LogLayer<S> = Box<dyn Layer<S> + Send + Sync>;

/// Installs a subscriber for the whole process that logs as configured. Keep the guard until the process ends.
///
/// Mode `dev`: text on stderr, coloured on a terminal. Mode `prod`: one JSON object a line, on stderr or in
/// `logging.file`, written by a background thread.
///
/// # Errors
/// See [`LogError`]; in particular if the process has a subscriber already, which is then left in place.
pub fn configure(config: &LoggingConfig) -> Result<LogGuard, LogError> {
    let (layer, guard) = layer::<Registry>(config)?;
    Registry::default().with(layer).try_init().map_err(|_| LogError::SubscriberExists)?;
    Ok(guard)
}

/// The same as a layer, to add to a subscriber of one's own. It filters for itself and leaves other layers alone.
///
/// # Errors
/// See [`LogError`].
pub fn layer<S>(config: &LoggingConfig) -> Result<(LogLayer<S>, LogGuard), LogError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    match config.target_file() {
        Some(path) => layer_to(config, open(&path)?),
        None if config.is_json() => layer_to(config, io::stderr()),
        None => {
            let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
            // On a terminal the default stands, which knows NO_COLOR.
            let layer = if io::stderr().is_terminal() { layer } else { layer.with_ansi(false) };
            Ok((filtered(config, layer)?, LogGuard::default()))
        }
    }
}

/// As [`layer`], but the lines go to `writer`, from a background thread.
///
/// # Errors
/// See [`LogError`].
pub fn layer_to<S, W>(config: &LoggingConfig, writer: W) -> Result<(LogLayer<S>, LogGuard), LogError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: Write + Send + 'static,
{
    let background = Background::start(writer, config.is_json()).map_err(LogError::Thread)?;
    let lines = background.lines();
    let layer = if config.is_json() {
        filtered(config, JsonLines::new(lines))?
    } else {
        filtered(config, tracing_subscriber::fmt::layer().with_ansi(false).with_writer(lines))?
    };
    Ok((layer, LogGuard { background: Some(background) }))
}

/// Adds the configured filter. Spans of jobs always pass, or a warning would lose its job when the level is `warn`.
fn filtered<S>(config: &LoggingConfig, layer: impl Layer<S> + Send + Sync) -> Result<LogLayer<S>, LogError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let level = config.level.as_str();
    let filter =
        EnvFilter::builder().parse(level).map_err(|source| LogError::Filter { level: level.to_owned(), source })?;
    let is_job_span = |metadata: &Metadata<'_>| metadata.is_span() && metadata.name() == JOB_SPAN;
    Ok(layer.with_filter(filter.or(filter_fn(is_job_span))).boxed())
}

fn open(path: &Path) -> Result<fs::File, LogError> {
    let opened = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::OpenOptions::new().create(true).append(true).open(path));
    opened.map_err(|source| LogError::File { path: path.to_owned(), source })
}

impl<'a> MakeWriter<'a> for background::Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
