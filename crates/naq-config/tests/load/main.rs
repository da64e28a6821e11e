//! The configuration as its users see it: files, variables and flags in, settings or every problem out.
//!
//! Everything enters through `load` with explicit inputs; no test reads or changes the process's environment.

#![expect(clippy::unwrap_used, reason = "a test helper that fails is a failed test")]

mod defaults;
mod problems;
mod reference;
mod sources;

use std::path::{Path, PathBuf};

use naq_config::{ConfigError, ConfigFiles, ConfigProblem, Environment, FlagOverride, LoadOptions, LoadedConfig, load};

/// A directory tree with configuration files, searched like a real machine's.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
    flags: Vec<FlagOverride>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, environment: Vec::new(), flags: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file: `etc/config.yaml`, `home/.naq/config.yaml`, `work/naq.yaml`…
    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub(crate) fn flag(mut self, flag: &str, key: &str, value: &str) -> Self {
        self.flags.push(FlagOverride::new(flag, key, value));
        self
    }

    fn options(&self, files: ConfigFiles) -> LoadOptions {
        let environment: Environment = self.environment.iter().cloned().collect();
        LoadOptions { files, environment, flags: self.flags.clone() }
    }

    pub(crate) fn load(&self) -> Result<LoadedConfig, ConfigError> {
        let files = ConfigFiles::Search {
            system: self.path("etc"),
            home: Some(self.path("home")),
            working_directory: self.path("work"),
        };
        load(&self.options(files))
    }

    pub(crate) fn load_only(&self, file: &Path) -> Result<LoadedConfig, ConfigError> {
        load(&self.options(ConfigFiles::Only(file.to_owned())))
    }

    pub(crate) fn problems(&self) -> Vec<ConfigProblem> {
        self.load().map(|_| ()).expect_err("the load must fail").problems
    }
}

/// One YAML file in the working directory.
pub(crate) fn yaml(content: &str) -> Machine {
    Machine::new().file("work/naq.yaml", content)
}
