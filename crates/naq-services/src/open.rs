//! [`open_storage`]: from a store's URL to the store.
//!
//! Invariant: the only place that knows which scheme means which backend, and how a backend's settings are called in the
//! configuration. A scheme whose backend was not built in is refused with the name of the cargo feature to turn on.

#[cfg(feature = "sqlite")]
use naq_config::PAYLOAD_HEADROOM;
use naq_config::{ChosenBy, NaqConfig, StoreChoice, StoreUrl};

#[cfg(any(feature = "sqlite", feature = "nats"))]
use crate::storage::EventRetention;
#[cfg(feature = "sqlite")]
use crate::storage::sqlite::{self, SqliteOptions};
use crate::storage::{SharedStorage, StorageError};
#[cfg(feature = "nats")]
use crate::{
    connection::{Auth, ConnectionOptions, Tls},
    storage::nats::{self, EventStream, NatsOptions},
};

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
#[cfg_attr(
    not(any(feature = "sqlite", feature = "nats")),
    expect(unused_variables, reason = "without a backend there is nothing to configure")
)]
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
        #[cfg(feature = "nats")]
        StoreUrl::Nats { servers } => nats::open(nats_options(servers, config)).await,
        #[cfg(not(feature = "nats"))]
        StoreUrl::Nats { .. } => Err(not_built(&choice.url, "nats")),
    }
}

/// How long a configuration says to keep events.
#[cfg(any(feature = "sqlite", feature = "nats"))]
fn retention(config: &NaqConfig) -> EventRetention {
    EventRetention { max_age: config.events.stream.max_age, max_bytes: config.events.stream.max_bytes.0 }
}

/// The headroom of `serialization.max_payload` is for what surrounds a job.
#[cfg(any(feature = "sqlite", feature = "nats"))]
fn max_payload(config: &NaqConfig) -> usize {
    usize::try_from(config.serialization.max_payload.0).unwrap_or(usize::MAX)
}

#[cfg(feature = "sqlite")]
async fn embedded(options: SqliteOptions, config: &NaqConfig) -> Result<SharedStorage, StorageError> {
    sqlite::open(configured(options, config)).await
}

/// For test kits: a new store `memory://NAME` whose time stands at `start`, or at that of the host, until a test moves
/// it. Who opens that name while it is open, in whatever way, finds this store.
///
/// # Errors
/// If a store of that name is open.
#[cfg(feature = "sqlite")]
#[doc(hidden)]
pub async fn open_virtual(
    name: &str,
    start: Option<naq_models::Timestamp>,
    config: &NaqConfig,
) -> Result<SharedStorage, StorageError> {
    sqlite::open_virtual(configured(SqliteOptions::memory(name), config), start).await
}

#[cfg(feature = "sqlite")]
fn configured(options: SqliteOptions, config: &NaqConfig) -> SqliteOptions {
    let synchronous = match config.storage.synchronous {
        naq_config::Synchronous::Full => sqlite::Synchronous::Full,
        naq_config::Synchronous::Normal => sqlite::Synchronous::Normal,
    };
    // The headroom, which a store in a file does not need, so that a job or result that fits here fits on NATS too.
    let max_body = max_payload(config).saturating_sub(usize::try_from(PAYLOAD_HEADROOM).unwrap_or(usize::MAX));
    SqliteOptions { synchronous, max_body, events: retention(config), ..options }
}

#[cfg(feature = "nats")]
pub(crate) fn nats_options(servers: &[naq_config::ServerUrl], config: &NaqConfig) -> NatsOptions {
    NatsOptions {
        connection: connection_options(servers, config),
        prefix: config.queues.prefix.clone(),
        replicas: usize::from(config.nats.replicas),
        compress: config.serialization.compression == naq_config::Compression::S2,
        default_lease: config.queues.ack_wait,
        events: EventStream {
            name: event_stream_name(config),
            retention: retention(config),
            replicas: usize::from(config.events.stream.replicas),
        },
        max_payload: Some(max_payload(config)),
    }
}

/// Two prefixes on one account cannot share a stream: one other than the default has its own.
#[cfg(feature = "nats")]
fn event_stream_name(config: &NaqConfig) -> String {
    let (name, default) = (&config.events.stream.name, NaqConfig::default());
    if *name == default.events.stream.name && config.queues.prefix != default.queues.prefix {
        return nats::own_event_stream(&config.queues.prefix);
    }
    name.clone()
}

/// How a configuration says to reach these servers.
#[cfg(feature = "nats")]
pub(crate) fn connection_options(servers: &[naq_config::ServerUrl], config: &NaqConfig) -> ConnectionOptions {
    let (nats, tls) = (&config.nats, &config.nats.tls);
    ConnectionOptions {
        servers: servers.iter().map(|server| server.expose().to_owned()).collect(),
        client_name: nats.client_name.clone(),
        auth: auth(&nats.auth),
        tls: Tls {
            ca: tls.ca_file.clone(),
            cert: tls.cert_file.clone(),
            key: tls.key_file.clone(),
            required: tls.enabled,
            first: tls.first,
        },
        connection_timeout: nats.connection_timeout,
        max_reconnect_attempts: nats.max_reconnect_attempts.map(|limit| limit as usize),
        reconnect_wait: nats.reconnect_time_wait,
        ping_interval: nats.ping_interval,
        flush_timeout: nats.flush_timeout,
        drain_timeout: nats.drain_timeout,
        ..ConnectionOptions::default()
    }
}

/// The configuration allows one way only.
#[cfg(feature = "nats")]
fn auth(auth: &naq_config::NatsAuthConfig) -> Auth {
    if let Some(file) = &auth.credentials_file {
        Auth::CredentialsFile(file.clone())
    } else if let Some(seed) = &auth.nkey_seed {
        Auth::Nkey(seed.expose().to_owned())
    } else if let Some(token) = &auth.token {
        Auth::Token(token.expose().to_owned())
    } else if let Some(user) = &auth.user {
        let password = auth.password.as_ref().map(|password| password.expose().to_owned()).unwrap_or_default();
        Auth::UserPassword { user: user.clone(), password }
    } else {
        Auth::None
    }
}

#[cfg(not(all(feature = "sqlite", feature = "nats")))]
pub(crate) fn not_built(url: &StoreUrl, feature: &str) -> StorageError {
    let detail = format!("{url} needs the backend {feature:?}, which is not built into this program");
    StorageError::new(crate::StorageErrorKind::Refused, "open", detail)
        .with_hint(format!("build it with the cargo feature `{feature}` of naq"))
}
