//! [`Session`]: one run of the program: its configuration, its store, its output.
//!
//! Invariant: the store is opened on first use, so that a command that needs none works without one; it is closed before
//! the program ends. Which store it is, is said once on standard error if nobody chose it.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicBool, Ordering},
};

use naq_config::{ChosenBy, ConfigError, FlagOverride, LoadOptions, LoadedConfig, LogFilter, NaqConfig, TracesConfig};
use naq_services::{JobService, ServiceManager};
use naq_telemetry::logging::{LogError, LogGuard, LogLayer, tracing_subscriber::Registry};
#[cfg(feature = "otel")]
use naq_telemetry::otel::TraceGuard;

use crate::{
    args::GlobalArgs,
    error::{CliError, with_sources},
    output::{self, Output},
};

/// Nothing of a subscriber's own is changed, so that its owner has to do this.
const NOT_EXPORTED: &str = "traces.endpoint is set, but this program has a tracing subscriber of its own: traces are exported \
                            only if it has the layer `naq::otel::layer`";

/// The log level of a command that prints something and ends.
pub(crate) const QUIET: &str = "warn";
/// The log level of a command that draws on the whole terminal.
pub(crate) const SILENT: &str = "off";

/// One run of the program.
#[derive(Debug)]
pub struct Session {
    output: Output,
    sources: Sources,
    services: ServiceManager,
    stuck: AtomicBool,
    // Before the log, which takes what there is to say of the last spans.
    _traces: Option<TraceGuard>,
    log: Option<LogGuard>,
}

/// What a configuration is read from, each time that it is.
#[derive(Debug)]
struct Sources {
    global: GlobalArgs,
    /// The log level where nobody chose one.
    default_level: LogFilter,
    /// Lines on a terminal that is drawn on would spoil the screen, whoever asked for them.
    silent_on_terminal: bool,
}

impl Sources {
    fn load(&self) -> Result<LoadedConfig, ConfigError> {
        let mut loaded = naq_config::load(&load_options(&self.global))?;
        let spoils =
            self.silent_on_terminal && loaded.config.logging.target_file().is_none() && io::stderr().is_terminal();
        if spoils || loaded.source_of("logging.level") == naq_config::Source::Default {
            loaded.config.logging.level = self.default_level.clone();
        }
        Ok(loaded)
    }
}

/// Where the configuration of this run comes from.
pub(crate) fn load_options(global: &GlobalArgs) -> LoadOptions {
    let mut options = LoadOptions::of_process(global.config.clone());
    if let Some(url) = &global.url {
        options.flags.push(FlagOverride::new("--url", "storage.url", url));
    }
    if let Some(level) = &global.log_level {
        options.flags.push(FlagOverride::new("--log-level", "logging.level", level));
    }
    options
}

/// There is none.
#[cfg(not(feature = "otel"))]
type TraceGuard = std::convert::Infallible;

/// The export of traces, where it is configured.
#[derive(Default)]
struct Traces {
    layers: Vec<LogLayer<Registry>>,
    guard: Option<TraceGuard>,
}

#[cfg(feature = "otel")]
fn traces(config: &TracesConfig, _warnings: &mut Vec<String>) -> Result<Traces, CliError> {
    if config.endpoint.is_none() {
        return Ok(Traces::default());
    }
    let (layer, guard) = naq_telemetry::otel::layer(config).map_err(|error| CliError::usage(with_sources(&error)))?;
    Ok(Traces { layers: vec![layer], guard: Some(guard) })
}

#[cfg(not(feature = "otel"))]
fn traces(config: &TracesConfig, warnings: &mut Vec<String>) -> Result<Traces, CliError> {
    if config.endpoint.is_some() {
        warnings
            .push("traces.endpoint is set, but this program was built without feature `otel`: no traces".to_owned());
    }
    Ok(Traces::default())
}

impl Session {
    /// Reads the configuration and sets up logging. `default_level` is the log level where nobody chose one.
    ///
    /// # Errors
    /// If the configuration is wrong: everything that is wrong with it, at once. If the log file cannot be opened.
    pub fn start(global: &GlobalArgs, default_level: &str) -> Result<Self, CliError> {
        let output = Output::new(global.output);
        let level = default_level.parse().map_err(|e| CliError::usage(format!("log level {default_level}: {e}")))?;
        let silent_on_terminal = default_level == SILENT;
        let sources = Sources { global: global.clone(), default_level: level, silent_on_terminal };
        let loaded = sources.load()?;
        let mut warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        let Traces { layers, guard } = traces(&loaded.config.traces, &mut warnings)?;
        let (log, traces) = match naq_telemetry::logging::configure_with(&loaded.config.logging, layers) {
            Ok(log) => (Some(log), guard),
            // A program that brings its own subscriber keeps it.
            Err(LogError::SubscriberExists) => {
                if loaded.config.traces.endpoint.is_some() {
                    warnings.push(NOT_EXPORTED.to_owned());
                }
                (None, None)
            }
            Err(error) => return Err(CliError::usage(with_sources(&error))),
        };
        let services = ServiceManager::from_loaded(loaded.clone()).map_err(|e| CliError::usage(e.to_string()))?;
        let session = Self { output, sources, services, stuck: AtomicBool::new(false), _traces: traces, log };
        for warning in &warnings {
            session.warn(warning);
        }
        Ok(session)
    }

    /// Reads the configuration again, from the same sources. What [`config`](Self::config) says stays.
    pub(crate) fn load_again(&self) -> Result<LoadedConfig, ConfigError> {
        self.sources.load()
    }

    /// Lets another process of this program read its configuration from the same sources. The store goes by the environment,
    /// where not everybody sees the credentials that it may hold.
    pub(crate) fn repeat_choices(&self, command: &mut std::process::Command) {
        let GlobalArgs { url, config, log_level, .. } = &self.sources.global;
        if let Some(url) = url {
            command.env("NAQ_URL", url);
        }
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        if let Some(level) = log_level {
            command.args(["--log-level", level]);
        }
    }

    /// The log, unless the program has one of its own.
    pub(crate) fn log(&self) -> Option<&LogGuard> {
        self.log.as_ref()
    }

    /// Tells whoever watches a program that runs for long: a person by a remark, a collector of JSON lines by one of those,
    /// and the log file.
    pub fn announce(&self, text: &str) {
        if !self.is_log_on_stderr() {
            self.output.note(text);
        }
        if self.is_log_on_stderr() || self.config().logging.target_file().is_some() {
            tracing::info!("{text}");
        }
    }

    /// Tells what a program has to know that started this one, whatever its output: one line on standard error.
    pub fn tell(&self, text: &str) {
        if self.is_log_on_stderr() || self.config().logging.target_file().is_some() {
            tracing::info!("{text}");
        }
        if !self.is_log_on_stderr() {
            output::note(text);
        }
    }

    /// Says that something is probably not as it was meant.
    pub fn warn(&self, text: &str) {
        if self.is_log_on_stderr() {
            tracing::warn!("{text}");
        } else {
            output::note(&format!("warning: {text}"));
        }
    }

    /// Whether somebody reads JSON lines from standard error.
    fn is_log_on_stderr(&self) -> bool {
        let logging = &self.config().logging;
        logging.is_json() && logging.target_file().is_none() && tracing::enabled!(tracing::Level::INFO)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &NaqConfig {
        self.services.config()
    }

    /// Where to print.
    #[must_use]
    pub fn output(&self) -> Output {
        self.output
    }

    /// The services, of which none may have been built yet.
    #[must_use]
    pub fn services(&self) -> &ServiceManager {
        &self.services
    }

    /// The jobs of the store, which is opened if it is not yet.
    ///
    /// # Errors
    /// If the store cannot be opened.
    pub async fn jobs(&self) -> Result<JobService, CliError> {
        let jobs = self.services.jobs().await?;
        let choice = self.services.store();
        if choice.chosen_by == ChosenBy::Default {
            self.announce(&format!("store: {choice}"));
        }
        Ok(jobs)
    }

    /// Notes that handlers which do not end hold threads of this process.
    pub(crate) fn note_stuck(&self) {
        self.stuck.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Closes what was opened.
    pub async fn end(self) {
        self.services.close().await;
    }
}
