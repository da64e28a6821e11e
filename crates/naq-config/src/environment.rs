//! The environment as a configuration source: one snapshot of the process's variables, and the settings they mean.
//!
//! Invariant: this is the only place in naq that reads the process's environment; everything else gets an
//! [`Environment`]. Every variable that starts with `NAQ_` either sets something, is known to mean something else, or is
//! reported.
//!
//! Not here: precedence among sources (`load`).

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The most names in the path of a setting, as many as a YAML file may have: trees are walked by calls within calls.
const DEPTH_MAX: usize = 64;

/// A snapshot of environment variables. Take it from the process, or build one for a test.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Names of variables whose values are not Unicode.
    unreadable: Vec<String>,
}

impl std::fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

impl Environment {
    /// The variables of this process, as they are now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn of_process() -> Self {
        let mut environment = Self::default();
        for (name, value) in std::env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.variables.insert(name, value)),
                Err(_) => environment.unreadable.push(name),
            }
        }
        environment
    }

    /// Variables with a name of their own, and the settings they mean. Of two for one setting the later one wins.
    pub fn named() -> impl Iterator<Item = (&'static str, &'static str)> {
        OTEL_VARIABLES.into_iter().chain(OMNIQ_VARIABLES).chain(OLD_VARIABLES)
    }

    /// One variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The directory where the user's programs keep state: `$XDG_STATE_HOME/naq` or the platform's equivalent. `None` if
    /// no variable says where the user's home is.
    #[must_use]
    pub fn state_directory(&self) -> Option<PathBuf> {
        // An XDG path that is not absolute must be ignored, says the specification.
        let xdg = self.directory("XDG_STATE_HOME").filter(|path| path.is_absolute());
        let native = if cfg!(target_os = "windows") {
            self.directory("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            self.home().map(|home| home.join("Library/Application Support"))
        } else {
            self.home().map(|home| home.join(".local/state"))
        };
        xdg.or(native).map(|base| base.join("naq"))
    }

    /// The user's home directory.
    #[must_use]
    pub fn home(&self) -> Option<PathBuf> {
        self.directory(if cfg!(target_os = "windows") { "USERPROFILE" } else { "HOME" })
    }

    fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get(name).filter(|value| !value.is_empty()).map(|value| Path::new(value).to_owned())
    }

    /// Names of naq's variables whose values cannot be read.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &str> {
        self.unreadable.iter().map(String::as_str).filter(|name| name.starts_with("NAQ_"))
    }

    /// Splits naq's variables by what they mean, lowest precedence first.
    pub(crate) fn settings(&self) -> Settings<'_> {
        let mut settings = Settings::default();
        // By its specification, an empty variable of OpenTelemetry is one that is not set.
        let given =
            |variable: &str| self.get(variable).filter(|value| !value.is_empty() || !variable.starts_with("OTEL_"));
        for (variable, key) in Self::named() {
            if let Some(value) = given(variable) {
                settings.set.push(Setting { variable, path: key.split('.').map(str::to_owned).collect(), value });
            }
        }
        for (variable, value) in &self.variables {
            let Some(rest) = variable.strip_prefix("NAQ_") else { continue };
            if (1..DEPTH_MAX).contains(&rest.matches("__").count()) {
                let path = rest.split("__").map(str::to_ascii_lowercase).collect();
                settings.set.push(Setting { variable, path, value });
            } else if let Some((_, reason)) = RETIRED_VARIABLES.iter().find(|(name, _)| name == variable) {
                settings.retired.push((variable, reason));
            } else if !is_known(variable) {
                settings.unknown.push(variable);
            }
        }
        settings
    }

    /// A name that [`Self::settings`] knows, near to one that it does not.
    pub(crate) fn nearest_variable(unknown: &str) -> Option<&'static str> {
        let names = OLD_VARIABLES.iter().map(|(name, _)| *name).chain(OTHER_VARIABLES);
        crate::problem::nearest(unknown, names)
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, unreadable: Vec::new() }
    }
}

/// What the environment says.
#[derive(Default)]
pub(crate) struct Settings<'a> {
    pub(crate) set: Vec<Setting<'a>>,
    /// Variables that mean nothing any more, and why.
    pub(crate) retired: Vec<(&'a str, &'static str)>,
    pub(crate) unknown: Vec<&'a str>,
}

/// One setting from one variable.
pub(crate) struct Setting<'a> {
    pub(crate) variable: &'a str,
    pub(crate) path: Vec<String>,
    pub(crate) value: &'a str,
}

fn is_known(variable: &str) -> bool {
    OLD_VARIABLES.iter().any(|(name, _)| *name == variable)
        || OTHER_VARIABLES.contains(&variable)
        || variable == ACK_WAIT_PER_QUEUE
        || variable.starts_with("NAQ_TEST_")
}

/// The variable whose value is a JSON object of queue names and leases in seconds.
pub(crate) const ACK_WAIT_PER_QUEUE: &str = "NAQ_ACK_WAIT_PER_QUEUE";

/// The variables that every program with OpenTelemetry takes, below those of naq. The exporter takes others by itself.
pub(crate) const OTEL_VARIABLES: [(&str, &str); 3] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "traces.endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "traces.endpoint"),
    ("OTEL_SERVICE_NAME", "traces.service_name"),
];

/// Logging variables of OmniQ, below those of NAQ.
pub(crate) const OMNIQ_VARIABLES: [(&str, &str); 5] = [
    ("OMNIQ_LOG_LEVEL", "logging.level"),
    ("OMNIQ_LOG_MODE", "logging.mode"),
    ("OMNIQ_LOG_FILE", "logging.file"),
    ("OMNIQ_LOG_ROTATION", "logging.max_size"),
    ("OMNIQ_LOG_RETENTION", "logging.retention"),
];

/// Variables with a name of their own, and the settings they mean. Of two for one setting the later one wins.
pub(crate) const OLD_VARIABLES: [(&str, &str); 44] = [
    ("NAQ_URL", "storage.url"),
    ("NAQ_NATS_URL", "nats.servers"),
    ("NAQ_CLIENT_NAME", "nats.client_name"),
    ("NAQ_MAX_RECONNECT_ATTEMPTS", "nats.max_reconnect_attempts"),
    ("NAQ_RECONNECT_TIME_WAIT", "nats.reconnect_time_wait"),
    ("NAQ_CONNECTION_TIMEOUT", "nats.connection_timeout"),
    ("NAQ_DRAIN_TIMEOUT", "nats.drain_timeout"),
    ("NAQ_PING_INTERVAL", "nats.ping_interval"),
    ("NAQ_DEFAULT_QUEUE", "queues.default"),
    ("NAQ_QUEUE_PREFIX", "queues.prefix"),
    ("NAQ_DEFAULT_ACK_WAIT", "queues.ack_wait"),
    ("NAQ_WORKER_CONCURRENCY", "workers.concurrency"),
    ("NAQ_WORKER_HEARTBEAT_INTERVAL", "workers.heartbeat_interval"),
    ("NAQ_WORKER_TTL", "workers.ttl"),
    ("NAQ_MAX_JOB_DURATION", "workers.max_job_duration"),
    ("NAQ_WORKER_SHUTDOWN_TIMEOUT", "workers.shutdown_timeout"),
    ("NAQ_SCHEDULER_ENABLED", "scheduler.enabled"),
    ("NAQ_SCHEDULER_LOCK_TTL", "scheduler.lock_ttl"),
    ("NAQ_SCHEDULER_LOCK_RENEW_INTERVAL", "scheduler.lock_renew_interval"),
    ("NAQ_MAX_SCHEDULE_FAILURES", "scheduler.max_failures"),
    ("NAQ_SCHEDULER_SCAN_INTERVAL", "scheduler.scan_interval"),
    ("NAQ_EVENTS_ENABLED", "events.enabled"),
    ("NAQ_EVENTS_BATCH_SIZE", "events.batch_size"),
    ("NAQ_EVENTS_FLUSH_INTERVAL", "events.flush_interval"),
    ("NAQ_EVENTS_MAX_BUFFER_SIZE", "events.max_buffer_size"),
    ("NAQ_EVENTS_STREAM_NAME", "events.stream.name"),
    ("NAQ_EVENT_LOGGER_BATCH_SIZE", "events.batch_size"),
    ("NAQ_EVENT_LOGGER_FLUSH_INTERVAL", "events.flush_interval"),
    ("NAQ_EVENT_LOGGER_MAX_BUFFER_SIZE", "events.max_buffer_size"),
    ("NAQ_EVENT_STREAM_NAME", "events.stream.name"),
    ("NAQ_JOB_STATUS_TTL", "results.ttl"),
    ("NAQ_DEFAULT_RESULT_TTL", "results.ttl"),
    ("NAQ_RESULT_CLEANUP_INTERVAL", "results.cleanup_interval"),
    ("NAQ_JOB_SERIALIZER", "serialization.job_serializer"),
    ("NAQ_LOG_LEVEL", "logging.level"),
    ("NAQ_LOG_MODE", "logging.mode"),
    ("NAQ_LOG_FORMAT", "logging.format"),
    ("NAQ_LOG_FILE_PATH", "logging.file"),
    ("NAQ_LOG_FILE", "logging.file"),
    ("NAQ_LOG_TO_FILE_ENABLED", "logging.to_file_enabled"),
    ("NAQ_LOG_MAX_SIZE", "logging.max_size"),
    ("NAQ_LOG_ROTATION", "logging.max_size"),
    ("NAQ_LOG_BACKUP_COUNT", "logging.backup_count"),
    ("NAQ_LOG_RETENTION", "logging.retention"),
];

/// Variables that mean something else than a setting: the environment to select, and what an `exec` handler is told
/// about its job (such a program may itself use naq).
const OTHER_VARIABLES: [&str; 6] =
    ["NAQ_ENVIRONMENT", "NAQ_JOB_ID", "NAQ_KIND", "NAQ_QUEUE", "NAQ_ATTEMPT", "NAQ_CORRELATION_ID"];

/// Variables that no longer mean anything, and why.
pub(crate) const RETIRED_VARIABLES: [(&str, &str); 7] = [
    ("NAQ_MAX_OUTSTANDING_PINGS", crate::retired::TWO_PINGS),
    ("NAQ_EVENT_STORAGE_URL", crate::retired::EVENTS_BESIDE_JOBS),
    ("NAQ_EVENT_STORAGE_TYPE", crate::retired::EVENTS_BESIDE_JOBS),
    ("NAQ_EVENT_SUBJECT_PREFIX", crate::retired::NAMES_FROM_PREFIX),
    ("NAQ_RESULT_KV_BUCKET", crate::retired::NAMES_FROM_PREFIX),
    ("NAQ_JSON_ENCODER", crate::retired::PYTHON_CLASSES),
    ("NAQ_JSON_DECODER", crate::retired::PYTHON_CLASSES),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_state_directory_follows_the_specification() {
        let directory =
            |variables: &[(&str, &str)]| variables.iter().copied().collect::<Environment>().state_directory();
        assert_eq!(directory(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")]), Some("/s/naq".into()));
        assert_eq!(
            directory(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "rel")]),
            Some("/home/a/.local/state/naq".into())
        );
        assert_eq!(directory(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "")]), Some("/home/a/.local/state/naq".into()));
        assert_eq!(directory(&[("HOME", "")]), None);
    }

    #[test]
    fn values_are_not_printed() {
        let environment: Environment = [("NAQ_NATS__AUTH__PASSWORD", "hunter2")].into_iter().collect();
        assert!(!format!("{environment:?}").contains("hunter2"));
    }
}
