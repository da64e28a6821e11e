//! [`open_storage`]: from a store's URL to the store.
//!
//! Invariant: the only place that knows which scheme means which backend. A scheme whose backend was not built in is
//! refused with the name of the cargo feature to turn on.

use naq_config::{NaqConfig, StoreUrl};

use crate::storage::{SharedStorage, StorageError, StorageErrorKind};

/// Opens the store at a URL with the settings of a configuration.
///
/// # Errors
/// If it cannot be reached or opened, or its backend is not built into this program.
pub async fn open_storage(url: &StoreUrl, _config: &NaqConfig) -> Result<SharedStorage, StorageError> {
    match url {
        StoreUrl::Sqlite { .. } | StoreUrl::Memory { .. } => Err(not_built(url, "sqlite")),
        StoreUrl::Nats { .. } => Err(not_built(url, "nats")),
    }
}

fn not_built(url: &StoreUrl, feature: &str) -> StorageError {
    let detail = format!("{url} needs the backend {feature:?}, which is not built into this program");
    StorageError::new(StorageErrorKind::Refused, "open", detail)
        .with_hint(format!("build it with the cargo feature `{feature}` of naq"))
}
