//! [`temp_config`]: a configuration for one test.
//!
//! Invariant: it is what the test says over the defaults, and nothing else: no file, variable or flag of the machine is
//! looked at. Its store lies in a folder of its own, which is removed with it. Nothing of the process is changed.

use std::{fs, io, ops::Deref, path::Path};

use naq_config::{ConfigError, ConfigFiles, FlagOverride, LoadOptions, LoadedConfig, NaqConfig, load};
use naq_services::ServiceManager;
use tempfile::TempDir;

/// A configuration, and the folder of its store, which is removed when this is dropped. Made by [`temp_config`] and
/// [`temp_config_yaml`].
#[derive(Debug)]
pub struct TempConfig {
    loaded: LoadedConfig,
    folder: TempDir,
}

/// Why a test gets no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TempConfigError {
    /// What the test says is wrong: everything that is, at once.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system gives no folder.
    #[error("no temporary folder can be made")]
    Folder(#[source] io::Error),
}

/// The default configuration with some settings of one's own, by their dotted names. Values are written as in a variable:
/// `2`, `30s`, `[mail, default]`. Unless they name another store, it is a file that is not there yet.
///
/// ```
/// use std::time::Duration;
/// use naq_testing::temp_config;
/// # use naq_config::NaqConfig;
/// # fn start_of_my_program(config: &NaqConfig) -> usize { config.workers.concurrency as usize }
///
/// let config = temp_config([("workers.concurrency", "2"), ("workers.shutdown_timeout", "5s")])?;
/// assert_eq!(config.workers.shutdown_timeout, Duration::from_secs(5));
/// assert_eq!(start_of_my_program(&config), 2);
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use naq_services::NewJob;
/// use serde_json::json;
///
/// let services = config.services();
/// let job = services.jobs().await?.enqueue(NewJob::new("mail", json!({}))).await?;
/// services.close().await;
/// let again = config.services();
/// assert_eq!(again.jobs().await?.status(job.id()).await?.kind, "mail");
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// assert!(temp_config([("workers.concurency", 2)]).is_err(), "it is checked as any other is");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// See [`TempConfigError`].
pub fn temp_config<K: Into<String>, V: ToString>(
    settings: impl IntoIterator<Item = (K, V)>,
) -> Result<TempConfig, TempConfigError> {
    let flags = settings.into_iter().map(|(key, value)| FlagOverride::new("temp_config", key, value.to_string()));
    TempConfig::load(folder()?, LoadOptions { flags: flags.collect(), ..LoadOptions::default() })
}

/// The same from the text of a configuration file.
///
/// ```
/// let config = naq_testing::temp_config_yaml("queues: {default: mail, configs: {mail: {ack_wait: 5s}}}")?;
/// assert_eq!(config.queues.default.as_str(), "mail");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// See [`TempConfigError`].
pub fn temp_config_yaml(text: &str) -> Result<TempConfig, TempConfigError> {
    let folder = folder()?;
    let file = folder.path().join("naq.yaml");
    fs::write(&file, text).map_err(TempConfigError::Folder)?;
    TempConfig::load(folder, LoadOptions { files: ConfigFiles::Only(file), ..LoadOptions::default() })
}

fn folder() -> Result<TempDir, TempConfigError> {
    tempfile::Builder::new().prefix("naq-testing-").tempdir().map_err(TempConfigError::Folder)
}

impl TempConfig {
    fn load(folder: TempDir, options: LoadOptions) -> Result<Self, TempConfigError> {
        let mut loaded = load(&options)?;
        let config = &mut loaded.config;
        if config.storage.url.is_none() && config.nats.servers.is_empty() {
            let url = format!("sqlite://{}", folder.path().join("naq.db").display());
            config.storage.url = Some(url.parse().expect("a path after `sqlite://` is a store"));
        }
        Ok(Self { loaded, folder })
    }

    /// The same with what a load tells besides: where each setting comes from, what has no effect.
    #[must_use]
    pub fn loaded(&self) -> &LoadedConfig {
        &self.loaded
    }

    /// The folder that is removed with it, for files of the test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// New services with this configuration, as a process of its own would have them. Close them before this is dropped.
    #[must_use]
    pub fn services(&self) -> ServiceManager {
        ServiceManager::from_loaded(self.loaded.clone()).expect("the configuration names its store")
    }
}

impl Deref for TempConfig {
    type Target = NaqConfig;

    fn deref(&self) -> &NaqConfig {
        &self.loaded.config
    }
}
