//! Turning `tracing` events into lines: text for a person, JSON for a collector, on stderr or in a file.
//!
//! Invariant: whoever logs never waits for a disk, a pipe or a terminal. Inside the span [`JOB_SPAN`] every line carries
//! the job, at any log level. A user's own subscriber is never replaced: either [`configure`] installs one, or [`layer`]
//! joins theirs.
//!
//! Not here: what is logged.

mod background;
mod file;
mod filter;
mod json;
mod messages;
mod rotated;
mod target;
mod task;
mod text;

use std::{
    io::{self, IsTerminal as _, Write},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use naq_config::{LogFilter, LogFormat, LoggingConfig};
use naq_models::Timestamp;
use tracing::{Metadata, Subscriber, level_filters::LevelFilter, subscriber::NoSubscriber};
use tracing_log::{AsLog as _, LogTracer};
/// The version of tracing-subscriber that [`layer`] fits.
pub use tracing_subscriber;
use tracing_subscriber::{
    Layer,
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    registry::{LookupSpan, Registry},
};

use self::{
    background::Background,
    filter::{Filter, filtered},
    json::JsonLines,
    rotated::Keep,
    target::{Plain, Target},
};
#[doc(inline)]
pub use crate::__naq_bind_task as bind_task;
pub use messages::{
    log_serialization_error, log_storage_error, log_task_completed, log_task_enqueued, log_task_failed,
    log_task_started, log_worker_started, log_worker_stopped,
};
pub use task::{TaskContext, TaskLogger, task_context};

/// For [`bind_task!`].
#[doc(hidden)]
pub mod __private {
    pub use tracing;
}

/// The span that a worker opens around a handler's run, with `task_id`, `operation`, `queue`, `attempt`, `worker` and
/// `correlation_id`. Only the worker's own counts, whatever other spans are called.
pub const JOB_SPAN: &str = "job";
/// The span of [`task_context`] and [`bind_task!`].
pub const TASK_SPAN: &str = "task";

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
    #[error("the process already has a tracing subscriber; add `naq::logging::layer` to it instead")]
    SubscriberExists,
    /// The subscriber that [`layer`] was added to is gone.
    #[error("the subscriber that logged is gone")]
    SubscriberGone,
}

/// Keeps lines being written. Dropping it writes what is buffered, for at most 5 s; lines logged later are dropped.
#[must_use = "log lines are lost once the guard is dropped"]
#[derive(Debug)]
pub struct LogGuard {
    filter: Filter,
    background: Background,
}

impl LogGuard {
    /// Lines that were dropped because they came faster than they could be written, or because writing failed.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.background.dropped()
    }

    /// Logs these lines from now on, whatever was configured. Everything else of the configuration stays.
    ///
    /// # Errors
    /// If it is not a filter; if nothing logs any more.
    pub fn set_level(&self, level: &LogFilter) -> Result<(), LogError> {
        self.filter.set(level)
    }
}

/// A boxed layer, as [`layer`] returns it.
pub type LogLayer<S> = Box<dyn Layer<S> + Send + Sync>;

/// Installs a subscriber for the whole process that logs as configured. Keep the guard until the process ends. Lines of
/// the `log` crate are taken too, unless the process has a logger for them.
///
/// Mode `dev`: text, coloured on a terminal. Mode `prod`: one JSON object a line. Either on stderr or in `logging.file`,
/// written by a background thread.
///
/// # Errors
/// See [`LogError`]; in particular if the process has a subscriber already, which is then left in place.
pub fn configure(config: &LoggingConfig) -> Result<LogGuard, LogError> {
    configure_with(config, Vec::new())
}

/// [`configure`] with one JSON object a line, whatever the configuration says of the format.
///
/// # Errors
/// As [`configure`].
pub fn configure_structured(config: &LoggingConfig) -> Result<LogGuard, LogError> {
    configure(&LoggingConfig { format: LogFormat::Json, ..config.clone() })
}

/// [`configure`] with more layers beside the one that logs, such as that of `naq_telemetry::otel`.
///
/// # Errors
/// As [`configure`].
pub fn configure_with(config: &LoggingConfig, mut layers: Vec<LogLayer<Registry>>) -> Result<LogGuard, LogError> {
    // First, so that nothing is opened or started in vain.
    if !tracing::dispatcher::get_default(|dispatch| dispatch.is::<NoSubscriber>()) {
        return Err(LogError::SubscriberExists);
    }
    let (layer, guard) = layer::<Registry>(config)?;
    layers.push(layer);
    let subscriber = Registry::default().with(layers);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::SubscriberExists)?;
    // No less than everything, as any filter may come (`LogGuard::set_level`).
    let most = LevelFilter::current().as_log();
    // A logger that is there stays.
    let _ours_or_theirs = LogTracer::builder().with_max_level(most).init();
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
    let Some(path) = config.target_file() else {
        return layer_on(config, Box::new(Plain::new(io::stderr())), io::stderr().is_terminal());
    };
    let keep = Keep { count: config.backup_count as usize, age: config.retention };
    let target = file::open(&path, config.max_size.0, keep).map_err(|source| LogError::File { path, source })?;
    layer_on(config, target, false)
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
    layer_on(config, Box::new(Plain::new(writer)), false)
}

fn layer_on<S>(
    config: &LoggingConfig,
    target: Box<dyn Target>,
    is_terminal: bool,
) -> Result<(LogLayer<S>, LogGuard), LogError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let background = Background::start(target, config.is_json()).map_err(LogError::Thread)?;
    let lines = background.lines();
    let (layer, filter) = if config.is_json() {
        filtered(&config.level, JsonLines::new(lines))?
    } else {
        let text = tracing_subscriber::fmt::layer().fmt_fields(text::Fields).with_writer(lines);
        // On a terminal the default stands, which knows NO_COLOR.
        filtered(&config.level, if is_terminal { text } else { text.with_ansi(false) })?
    };
    Ok((layer, LogGuard { filter, background }))
}

/// Whether a line or span is naq's own.
fn is_naq(metadata: &Metadata<'_>) -> bool {
    let krate = metadata.target().split_once("::").map_or(metadata.target(), |(krate, _)| krate);
    krate == "naq" || krate.starts_with("naq_")
}

/// The time of this host: of lines, and of rotated files.
#[expect(clippy::disallowed_methods, reason = "a log tells the time of its host, and asks no store for it")]
fn host_time() -> Timestamp {
    Timestamp::EPOCH.saturating_add(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Milliseconds to a thousandth.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl<'a> MakeWriter<'a> for background::Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
