//! What is wrong with a configuration: every problem at once, each with where it stands and what would be right.
//!
//! Invariant: nothing here holds a secret; values are redacted when a problem is made, not when it is printed.

use std::{fmt, path::PathBuf};

/// Where a value comes from, lowest precedence first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The default compiled into naq.
    Default,
    /// A configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The section `environments.<name>` of that file, if the value stands there.
        environment: Option<String>,
    },
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// A flag on the command line.
    Flag {
        /// The flag as the user writes it.
        name: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, environment: None } => write!(f, "{}", path.display()),
            Self::File { path, environment: Some(name) } => write!(f, "{} (environments.{name})", path.display()),
            Self::Variable { name } => f.write_str(name),
            Self::Flag { name } => f.write_str(name),
        }
    }
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The file cannot be read, or is too large.
    Unreadable,
    /// The file is not YAML or TOML.
    Syntax,
    /// No such setting.
    UnknownKey,
    /// A value of another type than the setting's.
    WrongType,
    /// A value of the right type that the setting does not take.
    InvalidValue,
    /// A value without which its entry makes no sense is not there.
    MissingKey,
    /// Two settings that cannot both hold, or one out of its bounds.
    Relation,
    /// `${NAME}` without a default names a variable that is not set, or is not closed.
    Expansion,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it stands.
    pub source: Source,
    /// The setting, dotted (`workers.ttl`); empty if the whole source is meant.
    pub key: String,
    /// The offending value as text, redacted, cut to 200 characters.
    pub value: Option<String>,
    /// What kind of thing is wrong.
    pub kind: ProblemKind,
    /// What was expected, in words.
    pub message: String,
    /// The nearest setting or word that exists.
    pub suggestion: Option<String>,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        match (&self.value, self.key.is_empty()) {
            (_, true) => {}
            (Some(value), false) => write!(f, "{} = {value}: ", self.key)?,
            (None, false) => write!(f, "{}: ", self.key)?,
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration, in the order of its keys. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    /// One problem a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => write!(f, "the configuration has a problem: {one}"),
            many => {
                write!(f, "the configuration has {} problems:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Something that was accepted and does not do what one might think.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Where it stands.
    pub source: Source,
    /// The setting; empty if the whole source is meant.
    pub key: String,
    /// Why it has no effect, and what to do.
    pub message: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.source, self.message),
            key => write!(f, "{}: {key}: {}", self.source, self.message),
        }
    }
}

/// The known word nearest to `word`, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let reach = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["concurrency", "ttl", "heartbeat_interval", "pools"];
        for (word, expected) in [
            ("concurency", Some("concurrency")),
            ("Concurrency", Some("concurrency")),
            ("ttk", Some("ttl")),
            ("heartbeat_intervall", Some("heartbeat_interval")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
