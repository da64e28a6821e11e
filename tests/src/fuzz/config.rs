//! Configuration: a file, and variables.
//!
//! Invariant: an input is the text of a file, and after a line `# env` variables, one a line. A file whose first line is
//! `# toml` is TOML. What is loaded is written as JSON, which YAML is too, and loaded again.

use std::{fs, path::Path};

use naq_config::{ConfigFiles, Environment, LoadOptions, LoadedConfig, NaqConfig, load};
use serde_json::Value;

/// What no message may repeat.
const SECRET: &str = "hunter2-9f8e7d";
const SECRET_VARIABLE: &str = "NAQ_NATS__AUTH__PASSWORD";
/// The longest value that a problem shows, in characters: 200, and quotes and an ellipsis.
const SHOWN_MAX: usize = 204;

/// Loads a configuration: see the module.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (file, variables) = text.split_once("\n# env\n").unwrap_or((text, ""));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join(if file.starts_with("# toml\n") { "naq.toml" } else { "naq.yaml" });
    fs::write(&path, file).expect("a temporary file can be written");
    let given = variables.lines().filter_map(|line| line.split_once('='));
    let environment = [(SECRET_VARIABLE, SECRET)].into_iter().chain(given).collect();
    match from_file(&path, environment) {
        Ok(loaded) => {
            assert!(!format!("{:?} {:?}", loaded.config, loaded.warnings).contains(SECRET));
            assert_eq!(loaded.config.validate().map_err(|error| error.to_string()), Ok(()));
            assert_loads_again(&loaded.config, folder.path());
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
            for problem in &error.problems {
                let shown = problem.value.as_ref().map_or(0, |value| value.chars().count());
                assert!(shown <= SHOWN_MAX, "{shown} characters: {problem}");
            }
        }
    }
}

fn from_file(file: &Path, environment: Environment) -> Result<LoadedConfig, naq_config::ConfigError> {
    load(&LoadOptions { files: ConfigFiles::Only(file.to_owned()), environment, flags: Vec::new() })
}

/// What `naq system config --show` says, as a file, means the same. Secrets are not in it: they become `***` on both sides.
fn assert_loads_again(config: &NaqConfig, folder: &Path) {
    let shown = serde_json::to_value(config).expect("settings are only what JSON can say");
    assert!(!shown.to_string().contains(SECRET), "{shown}");
    let mut written = shown.clone();
    escape(&mut written);
    let path = folder.join("again.yaml");
    fs::write(&path, written.to_string()).expect("a temporary file can be written");
    let again = from_file(&path, Environment::default()).unwrap_or_else(|error| panic!("{written}\n{error}"));
    assert_eq!(serde_json::to_value(again.config).expect("settings are only what JSON can say"), shown);
}

/// `${` in a text of a file names a variable; `$${` is the text.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace("${", "$${"),
        Value::Array(items) => items.iter_mut().for_each(escape),
        Value::Object(entries) => entries.values_mut().for_each(escape),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
