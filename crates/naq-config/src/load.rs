//! Loading: which sources there are, in which order, and what comes out.
//!
//! Invariant: a load is a function of its [`LoadOptions`] and the files they name. Lowest to highest: defaults, system
//! file, user's file, working directory's file (or one explicit file instead of all three), the selected section of
//! `environments`, OmniQ's variables, NAQ's own variables, `NAQ_<SECTION>__<KEY>`, flags.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use figment::value::{Dict, Value};

use crate::{
    ConfigError, ConfigProblem, ConfigWarning, NaqConfig, ProblemKind, Source,
    environment::{ACK_WAIT_PER_QUEUE, Environment},
    extract::{self, Extracted},
    layers::{self, Layer},
    problem::nearest,
    relations, retired,
    store::{NoStateDirectory, StoreChoice, choose_store},
    tree,
};

/// The variable that selects a section of `environments`.
const ENVIRONMENT_VARIABLE: &str = "NAQ_ENVIRONMENT";
/// The section of files that holds the others by environment.
const ENVIRONMENTS: &str = "environments";

/// Which files are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConfigFiles {
    /// None.
    #[default]
    None,
    /// This one, which must exist.
    Only(PathBuf),
    /// `SYSTEM/config.yaml`, `HOME/.naq/config.yaml`, then `naq.yaml`, `naq.yml` or `naq.toml` in the working
    /// directory; those that exist.
    Search {
        /// `/etc/naq` on a real system.
        system: PathBuf,
        /// The user's home.
        home: Option<PathBuf>,
        /// The working directory.
        working_directory: PathBuf,
    },
}

impl ConfigFiles {
    /// Where files are looked for on a real system.
    #[must_use]
    pub fn search(environment: &Environment) -> Self {
        Self::Search { system: "/etc/naq".into(), home: environment.home(), working_directory: ".".into() }
    }
}

/// A setting from a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagOverride {
    /// The flag as the user writes it (`--log-level`).
    pub flag: String,
    /// The setting, dotted (`logging.level`).
    pub key: String,
    /// Its value as text.
    pub value: String,
}

impl FlagOverride {
    /// A flag, its setting, and the value it was given.
    #[must_use]
    pub fn new(flag: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { flag: flag.into(), key: key.into(), value: value.into() }
    }
}

/// What a load looks at. The default looks at nothing and gives the default configuration.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Files.
    pub files: ConfigFiles,
    /// Variables, also those for `${…}`.
    pub environment: Environment,
    /// Flags.
    pub flags: Vec<FlagOverride>,
}

impl LoadOptions {
    /// The usual sources of a process: its variables and the usual files, or `config_file` instead of those.
    #[must_use]
    pub fn of_process(config_file: Option<PathBuf>) -> Self {
        let environment = Environment::of_process();
        let files = config_file.map_or_else(|| ConfigFiles::search(&environment), ConfigFiles::Only);
        Self { files, environment, flags: Vec::new() }
    }
}

/// A configuration that was read and checked.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    /// The settings.
    pub config: NaqConfig,
    /// What was accepted without effect.
    pub warnings: Vec<ConfigWarning>,
    /// The files that were read, lowest precedence first.
    pub files: Vec<PathBuf>,
    origins: BTreeMap<String, Source>,
    state_directory: Option<PathBuf>,
}

impl LoadedConfig {
    /// Where a setting (dotted) comes from.
    #[must_use]
    pub fn source_of(&self, key: &str) -> Source {
        self.origins.get(key).cloned().unwrap_or(Source::Default)
    }

    /// Every setting that some source gives, with that source.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &Source)> {
        self.origins.iter().map(|(key, source)| (key.as_str(), source))
    }

    /// The store that this configuration means.
    ///
    /// # Errors
    /// If nothing names one and there is no place for the embedded one.
    pub fn store(&self) -> Result<StoreChoice, NoStateDirectory> {
        choose_store(&self.config, self.state_directory.as_deref())
    }
}

/// Reads the configuration of this process: its variables, and the usual files or `file` instead of them.
///
/// # Errors
/// As [`load`].
pub fn load_config(file: Option<&Path>) -> Result<LoadedConfig, ConfigError> {
    load(&LoadOptions::of_process(file.map(Path::to_path_buf)))
}

/// The settings of this process, from its variables and the usual files. Read anew by each call: nothing is global.
///
/// # Errors
/// As [`load`].
pub fn get_config() -> Result<NaqConfig, ConfigError> {
    Ok(load_config(None)?.config)
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong in any source, at once.
pub fn load(options: &LoadOptions) -> Result<LoadedConfig, ConfigError> {
    let mut reading = Reading::default();
    reading.read_files(&options.files);
    let selected = options.environment.get(ENVIRONMENT_VARIABLE).filter(|name| !name.is_empty());
    reading.select_environment(selected);
    for layer in &mut reading.layers {
        layer.expand(&options.environment, &mut reading.problems);
    }
    let file_layers = reading.layers.len();
    reading.read_environment(&options.environment);
    for flag in &options.flags {
        let source = Source::Flag { name: flag.flag.clone() };
        reading.push(Layer::of_text(source, tree::path(&flag.key), &flag.value));
    }

    let Extracted { config, problems, faulty, origins } = extract::extract(&reading.layers, |_| true);
    reading.problems.extend(problems);
    let is_faulty = |key: &String| {
        let path = tree::path(key);
        faulty.iter().any(|faulty| path.starts_with(faulty) || faulty.starts_with(&path))
    };
    for violation in relations::violations(&config) {
        if !violation.keys.iter().any(is_faulty) {
            let origin = violation.keys.iter().find_map(|key| origins.get(key));
            let source = origin.map_or(Source::Default, |(source, _)| source.clone());
            reading.problems.push(violation.into_problem(source));
        }
    }
    reading.check_other_environments(file_layers);

    if !reading.problems.is_empty() {
        return Err(ConfigError { problems: reading.problems });
    }
    Ok(LoadedConfig {
        config,
        warnings: reading.warnings,
        files: reading.files,
        origins: origins.into_iter().map(|(key, (source, _))| (key, source)).collect(),
        state_directory: options.environment.state_directory(),
    })
}

#[derive(Default)]
struct Reading {
    layers: Vec<Layer>,
    /// Sections of `environments` that are not selected.
    unselected: Vec<Layer>,
    files: Vec<PathBuf>,
    problems: Vec<ConfigProblem>,
    warnings: Vec<ConfigWarning>,
}

impl Reading {
    fn push(&mut self, mut layer: Layer) {
        retired::apply(&mut layer, &mut self.warnings);
        self.layers.push(layer);
    }

    fn read_files(&mut self, files: &ConfigFiles) {
        match files {
            ConfigFiles::None => {}
            ConfigFiles::Only(file) => {
                if !self.read_file(file) {
                    self.problem(file, ProblemKind::Unreadable, "there is no such file".to_owned());
                }
            }
            ConfigFiles::Search { system, home, working_directory } => {
                self.read_file(&system.join("config.yaml"));
                if let Some(home) = home {
                    self.read_file(&home.join(".naq").join("config.yaml"));
                }
                let candidates = ["naq.yaml", "naq.yml", "naq.toml"].map(|name| working_directory.join(name));
                let mut present = candidates.iter().filter(|file| file.exists());
                if let Some(first) = present.next() {
                    self.read_file(first);
                    for other in present {
                        let message = format!("is not read, because {} is there too", first.display());
                        self.warnings.push(ConfigWarning { source: file_source(other), key: String::new(), message });
                    }
                }
            }
        }
    }

    /// Reads one file; false if it does not exist.
    fn read_file(&mut self, file: &Path) -> bool {
        match layers::read(file) {
            Ok(None) => return false,
            Ok(Some(mut layer)) => {
                self.take_environments(file, &mut layer.tree);
                layers::drop_empty_sections(&mut layer.tree, &extract::defaults());
                self.push(layer);
            }
            Err(problem) => self.problems.push(*problem),
        }
        self.files.push(file.to_owned());
        true
    }

    /// Takes `environments` out of a file's tree.
    fn take_environments(&mut self, file: &Path, tree: &mut Dict) {
        let sections = match tree.remove(ENVIRONMENTS) {
            None | Some(Value::Empty(..)) => return,
            Some(Value::Dict(_, sections)) => sections,
            Some(_) => {
                let message = "`environments` must be a mapping of names to sections".to_owned();
                return self.problem(file, ProblemKind::WrongType, message);
            }
        };
        for (name, section) in sections {
            let source = Source::File { path: file.to_owned(), environment: Some(name.clone()) };
            match section {
                Value::Empty(..) => self.unselected.push(Layer::new(source, Dict::new())),
                Value::Dict(_, section) => {
                    let mut layer = Layer::new(source, section);
                    retired::unfold_environment(&mut layer, &mut self.warnings);
                    layers::drop_empty_sections(&mut layer.tree, &extract::defaults());
                    retired::apply(&mut layer, &mut self.warnings);
                    self.unselected.push(layer);
                }
                _ => {
                    let message = format!("`environments.{name}` must be a mapping of sections");
                    self.problem(file, ProblemKind::WrongType, message);
                }
            }
        }
    }

    /// Moves the selected sections above the files.
    fn select_environment(&mut self, selected: Option<&str>) {
        let Some(selected) = selected else { return };
        let is_selected = |layer: &Layer| environment_of(layer) == Some(selected);
        let known: Vec<String> = self.unselected.iter().filter_map(environment_of).map(str::to_owned).collect();
        let (chosen, others) = std::mem::take(&mut self.unselected).into_iter().partition(is_selected);
        self.unselected = others;
        if chosen.is_empty() {
            let near = nearest(selected, known.iter().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let message = format!("no file has a section environments.{selected}{hint}");
            let source = Source::Variable { name: ENVIRONMENT_VARIABLE.to_owned() };
            self.warnings.push(ConfigWarning { source, key: String::new(), message });
        }
        self.layers.extend(chosen);
    }

    fn read_environment(&mut self, environment: &Environment) {
        let settings = environment.settings();
        for setting in settings.set {
            let source = Source::Variable { name: setting.variable.to_owned() };
            self.push(Layer::of_text(source, setting.path, setting.value));
        }
        if let Some(text) = environment.get(ACK_WAIT_PER_QUEUE) {
            self.ack_wait_per_queue(text);
        }
        let warning = |name: &str, message: String| ConfigWarning {
            source: Source::Variable { name: name.to_owned() },
            key: String::new(),
            message,
        };
        for (name, reason) in settings.retired {
            self.warnings.push(warning(name, reason.to_owned()));
        }
        for name in settings.unknown {
            let near = Environment::nearest_variable(name);
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            self.warnings.push(warning(name, format!("has no effect: naq knows no such variable{hint}")));
        }
        for name in environment.unreadable() {
            let source = Source::Variable { name: name.to_owned() };
            let message = "its value is not Unicode".to_owned();
            let (key, value, suggestion) = (String::new(), None, None);
            self.problems.push(ConfigProblem {
                source,
                key,
                value,
                kind: ProblemKind::Unreadable,
                message,
                suggestion,
            });
        }
    }

    fn ack_wait_per_queue(&mut self, text: &str) {
        let source = Source::Variable { name: ACK_WAIT_PER_QUEUE.to_owned() };
        match serde_json::from_str::<BTreeMap<String, f64>>(text) {
            Ok(leases) => {
                let mut layer = Layer::new(source, Dict::new());
                for (queue, seconds) in leases {
                    let path = ["queues", "configs", &queue, "ack_wait"].map(str::to_owned);
                    tree::insert(&mut layer.tree, &path, Value::from(seconds));
                }
                self.layers.push(layer);
            }
            Err(_) => self.problems.push(ConfigProblem {
                source,
                key: "queues.configs".to_owned(),
                value: Some(format!("{text:?}")),
                kind: ProblemKind::WrongType,
                message: "expected a JSON object of queue names and seconds".to_owned(),
                suggestion: None,
            }),
        }
    }

    /// Finds what is wrong in sections that are not selected now, so that it does not wait for the day they are. What
    /// depends on a variable is left alone: it is set where the section is used.
    fn check_other_environments(&mut self, file_layers: usize) {
        let sections = std::mem::take(&mut self.unselected);
        for mut section in sections {
            let mut dependent = Vec::new();
            tree::leaves(&section.tree, &mut tree::Path::new(), &mut |path, value| {
                if depends_on_variables(value) {
                    dependent.push(path.clone());
                }
            });
            for path in dependent {
                tree::remove(&mut section.tree, &path);
            }
            let mut layers = self.layers[..file_layers].to_vec();
            layers.push(section);
            let found = extract::extract(&layers, |layer| layer == file_layers);
            self.problems.extend(found.problems);
        }
    }

    fn problem(&mut self, file: &Path, kind: ProblemKind, message: String) {
        let (key, value, suggestion) = (String::new(), None, None);
        self.problems.push(ConfigProblem { source: file_source(file), key, value, kind, message, suggestion });
    }
}

fn file_source(file: &Path) -> Source {
    Source::File { path: file.to_owned(), environment: None }
}

fn environment_of(layer: &Layer) -> Option<&str> {
    match &layer.source {
        Source::File { environment, .. } => environment.as_deref(),
        _ => None,
    }
}

fn depends_on_variables(value: &Value) -> bool {
    match value {
        Value::String(_, text) => text.contains("${"),
        Value::Array(_, items) => items.iter().any(depends_on_variables),
        _ => false,
    }
}
