//! `naq system config` and `generate-config`: what is in effect and why, what is wrong, and where to start.
//!
//! Invariant: works without a store. Secrets are not printed.

use std::path::PathBuf;

use naq_config::{ConfigError, ConfigProblem, LoadedConfig, Purpose, load, template};
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::GlobalArgs,
    error::CliError,
    output::{self, Output},
    session::load_options,
};

/// One setting, as it is in effect.
#[derive(Serialize)]
struct Setting {
    key: String,
    value: Value,
    source: String,
}

#[derive(Serialize)]
struct Shown {
    files: Vec<PathBuf>,
    settings: Vec<Setting>,
    warnings: Vec<String>,
}

pub(crate) fn show(global: &GlobalArgs, out: Output) -> Result<(), CliError> {
    let loaded = load(&load_options(global))?;
    let shown = Shown { files: loaded.files.clone(), settings: settings(&loaded), warnings: warnings(&loaded) };
    remark(&loaded, out);
    out.one(&shown, || {
        let row = |setting: &Setting| [setting.key.clone(), text(&setting.value), setting.source.clone()];
        output::table(["setting", "value", "from"], shown.settings.iter().map(row))
    })
}

#[derive(Serialize)]
struct Verdict {
    valid: bool,
    files: Vec<PathBuf>,
    warnings: Vec<String>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    source: String,
    key: String,
    value: Option<String>,
    message: String,
    suggestion: Option<String>,
}

impl From<&ConfigProblem> for Problem {
    fn from(problem: &ConfigProblem) -> Self {
        let ConfigProblem { source, key, value, message, suggestion, .. } = problem.clone();
        Self { source: source.to_string(), key, value, message, suggestion }
    }
}

pub(crate) fn validate(global: &GlobalArgs, out: Output) -> Result<(), CliError> {
    match load(&load_options(global)) {
        Ok(loaded) => {
            let (files, warnings) = (loaded.files.clone(), warnings(&loaded));
            remark(&loaded, out);
            let verdict = Verdict { valid: true, files, warnings, problems: Vec::new() };
            out.one(&verdict, || "the configuration is right".to_owned())
        }
        Err(error) => {
            let ConfigError { problems } = &error;
            if out.is_json() {
                let problems = problems.iter().map(Problem::from).collect();
                let verdict = Verdict { valid: false, files: Vec::new(), warnings: Vec::new(), problems };
                out.one(&verdict, String::new)?;
            }
            Err(CliError::failed(error.to_string()))
        }
    }
}

pub(crate) fn generate(purpose: Purpose) -> Result<(), CliError> {
    output::line(template(purpose).trim_end())
}

fn warnings(loaded: &LoadedConfig) -> Vec<String> {
    loaded.warnings.iter().map(ToString::to_string).collect()
}

/// Says what was read, and what has no effect.
fn remark(loaded: &LoadedConfig, out: Output) {
    for file in &loaded.files {
        out.note(&format!("read {}", file.display()));
    }
    for warning in warnings(loaded) {
        out.note(&format!("warning: {warning}"));
    }
}

fn settings(loaded: &LoadedConfig) -> Vec<Setting> {
    let setting = |(key, value): (String, Value)| Setting { source: loaded.source_of(&key).to_string(), key, value };
    loaded.config.settings().into_iter().map(setting).collect()
}

/// A value as it is shown to people.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
