//! The section `logging`: which lines, in which form, to where.
//!
//! Invariant: a [`LogFilter`] holds levels that exist, in the words of `tracing`.
//!
//! Not here: writing lines (naq-telemetry).

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{byte_size::ByteSize, load::get_config, problem::ConfigError, serde_forms, text::words};

/// `logging`: what is written where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// Which lines.
    pub level: LogFilter,
    /// For a person (`dev`) or for a collector (`prod`).
    pub mode: LogMode,
    /// `text` or `json`; `auto` follows `mode`.
    pub format: LogFormat,
    /// The file to write to.
    pub file: Option<PathBuf>,
    /// Whether to write to `file`; unset means: if `file` is set.
    pub to_file_enabled: Option<bool>,
    /// Size at which the file is rotated. Rotated files are compressed.
    pub max_size: ByteSize,
    /// Rotated files that are kept; 0 keeps none.
    pub backup_count: u32,
    /// Age at which rotated files are removed, counted from their rotation.
    #[serde(with = "serde_forms::duration")]
    pub retention: Duration,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        Self {
            level: LogFilter::default(),
            mode: LogMode::default(),
            format: LogFormat::default(),
            file: None,
            to_file_enabled: None,
            max_size: ByteSize(100_000_000),
            backup_count: 5,
            retention: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl LoggingConfig {
    /// What the configuration files and the environment of this process say.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, at once; also outside this section.
    pub fn of_process() -> Result<Self, ConfigError> {
        Ok(get_config()?.logging)
    }

    /// The file to write to, if lines go to a file: `file`, or `naq.log` if only `to_file_enabled` is set.
    #[must_use]
    pub fn target_file(&self) -> Option<PathBuf> {
        match (self.to_file_enabled, &self.file) {
            (Some(false), _) | (None, None) => None,
            (_, Some(file)) => Some(file.clone()),
            (Some(true), None) => Some(PathBuf::from("naq.log")),
        }
    }

    /// Whether lines are JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        match self.format {
            LogFormat::Auto => self.mode == LogMode::Prod,
            LogFormat::Text => false,
            LogFormat::Json => true,
        }
    }
}

words! {
    /// For whom log lines are written.
    #[derive(Default)]
    LogMode {
        /// A person: text, coloured on a terminal.
        #[default]
        Dev = "dev" | "development",
        /// A collector: one JSON object a line.
        Prod = "prod" | "production",
    }
}

words! {
    /// The form of log lines.
    #[derive(Default)]
    LogFormat {
        /// As `logging.mode` says.
        #[default]
        Auto = "auto",
        /// For reading.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

/// Which lines are logged: a level (`info`) or comma-separated directives (`info,naq_worker=debug`).
///
/// Old names of levels (`WARNING`, `CRITICAL`) are taken and rewritten. A bare word that is no level is refused: the
/// filter syntax would take it for a crate's name, log everything of that crate and nothing else, and say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

/// Why a text is not a log filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not a level; write trace, debug, info, warn, error, off, or target=level")]
pub struct LogFilterError {
    word: String,
}

impl LogFilter {
    /// The filter in the syntax of `RUST_LOG`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

/// A level in the words of `tracing`; `None` if the text is no level.
fn level(word: &str) -> Option<&'static str> {
    Some(match word.trim().to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" | "success" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" | "fatal" => "error",
        "off" | "none" => "off",
        _ => return None,
    })
}

impl FromStr for LogFilter {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        let mut directives = Vec::new();
        for directive in text.split(',').map(str::trim).filter(|d| !d.is_empty()) {
            // A span directive (`target[span{field=value}]=level`) is left to the filter's own parser.
            let target_and_level = if directive.contains('[') { None } else { directive.rsplit_once('=') };
            directives.push(match target_and_level {
                Some((target, word)) => {
                    let word = level(word).ok_or_else(|| LogFilterError { word: word.to_owned() })?;
                    format!("{target}={word}")
                }
                None if directive.contains('[') => directive.to_owned(),
                None => level(directive).ok_or_else(|| LogFilterError { word: directive.to_owned() })?.to_owned(),
            });
        }
        if directives.is_empty() {
            return Err(LogFilterError { word: text.to_owned() });
        }
        Ok(Self(directives.join(",")))
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for LogFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for LogFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_crate() {
        for (text, filter) in [
            ("INFO", "info"),
            ("WARNING", "warn"),
            ("critical", "error"),
            ("info, naq_worker=DEBUG", "info,naq_worker=debug"),
            ("warn,naq[job{kind=mail}]=trace", "warn,naq[job{kind=mail}]=trace"),
        ] {
            assert_eq!(text.parse::<LogFilter>().unwrap().as_str(), filter);
        }
        for text in ["", "verbos", "naq_worker", "naq=verbose"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text:?} must be refused");
        }
    }
}
