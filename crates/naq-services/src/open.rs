//! [`open_storage`]: from a store's URL to the store.
//!
//! Invariant: the only place that knows which scheme means which backend. A scheme whose backend was not built in is
//! refused with the name of the cargo feature to turn on.

use naq_config::{ChosenBy, NaqConfig, StoreChoice, StoreUrl};

#[cfg(feature = "sqlite")]
use crate::storage::sqlite::{self, SqliteOptions};
use crate::storage::{SharedStorage, StorageError};

/// Opens the store at a URL with the settings of a configuration.
///
/// # Errors
/// If it cannot be reached or opened, or its backend is not built into this program.
pub async fn open_storage(url: &StoreUrl, config: &NaqConfig) -> Result<SharedStorage, StorageError> {
    open_choice(&StoreChoice { url: url.clone(), chosen_by: ChosenBy::StorageUrl }, config).await
}

/// The same for a store that was chosen by the configuration: where nothing names one, the directories of the embedded
/// file are created.
///
/// # Errors
/// As [`open_storage`].
pub async fn open_choice(choice: &StoreChoice, config: &NaqConfig) -> Result<SharedStorage, StorageError> {
    match &choice.url {
        #[cfg(feature = "sqlite")]
        StoreUrl::Sqlite { path } => {
            let create_directories = choice.chosen_by == ChosenBy::Default;
            embedded(SqliteOptions { create_directories, ..SqliteOptions::file(path) }, config).await
        }
        #[cfg(feature = "sqlite")]
        StoreUrl::Memory { name } => embedded(SqliteOptions::memory(name), config).await,
        #[cfg(not(feature = "sqlite"))]
        StoreUrl::Sqlite { .. } | StoreUrl::Memory { .. } => Err(not_built(&choice.url, "sqlite")),
        StoreUrl::Nats { .. } => Err(not_built(&choice.url, "nats")),
    }
}

#[cfg(feature = "sqlite")]
async fn embedded(options: SqliteOptions, config: &NaqConfig) -> Result<SharedStorage, StorageError> {
    let synchronous = match config.storage.synchronous {
        naq_config::Synchronous::Full => sqlite::Synchronous::Full,
        naq_config::Synchronous::Normal => sqlite::Synchronous::Normal,
    };
    // The headroom of `serialization.max_payload` is for what surrounds a job; a result may use it.
    let max_body = usize::try_from(config.serialization.max_payload.0).unwrap_or(usize::MAX);
    sqlite::open(SqliteOptions { synchronous, max_body, ..options }).await
}

fn not_built(url: &StoreUrl, feature: &str) -> StorageError {
    let detail = format!("{url} needs the backend {feature:?}, which is not built into this program");
    StorageError::new(crate::StorageErrorKind::Refused, "open", detail)
        .with_hint(format!("build it with the cargo feature `{feature}` of naq"))
}
