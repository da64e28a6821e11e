//! The typed configuration of naq: defaults, layers, validation.
//!
//! Invariant: every setting has a type, a default and a line in `default-config.yaml`; what a file, variable or flag
//! says that naq does not understand is an error, and all errors are reported at once. Secrets are never printed.
//!
//! Not here: services, connections, and what a setting causes. This crate knows only `naq-models`, and figment does not
//! show in its interface.
//!
//! ```
//! use naq_config::{LoadOptions, load};
//!
//! let options = LoadOptions {
//!     environment: [("NAQ_WORKERS__CONCURRENCY", "4"), ("NAQ_URL", "nats://127.0.0.1:4222")].into_iter().collect(),
//!     ..LoadOptions::default()
//! };
//! let loaded = load(&options)?;
//! assert_eq!(loaded.config.workers.concurrency, 4);
//! assert_eq!(loaded.store()?.url.to_string(), "nats://127.0.0.1:4222");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod byte_size;
mod change;
mod environment;
mod expand;
mod extract;
mod handlers;
mod layers;
mod listen;
mod load;
mod logging;
mod nats;
mod problem;
mod relations;
mod retired;
mod schedules;
mod sections;
mod serde_forms;
mod store;
mod template;
mod text;
mod tree;

pub use byte_size::{ByteSize, ByteSizeError};
pub use change::{Change, RELOADABLE, is_reloadable};
pub use environment::Environment;
pub use handlers::{ExecHandler, ExecProtocol, HandlerConfig, HttpHandler, HttpMethod, NatsHandler};
pub use listen::{ListenAddress, ListenAddressError};
pub use load::{ConfigFiles, FlagOverride, LoadOptions, LoadedConfig, get_config, load, load_config};
pub use logging::{LogFilter, LogFilterError, LogFormat, LogMode, LoggingConfig};
pub use nats::{NatsAuthConfig, NatsConfig, NatsTlsConfig};
pub use problem::{ConfigError, ConfigProblem, ConfigWarning, ProblemKind, Source};
pub use relations::{CONCURRENCY_MAX, PAYLOAD_HEADROOM};
pub use schedules::ScheduleConfig;
pub use sections::{
    Compression, EventFiltersConfig, EventStreamConfig, EventsConfig, JobSerializer, JobsConfig, NaqConfig,
    QueueConfig, QueuesConfig, ResultsConfig, SchedulerConfig, SerializationConfig, StorageConfig, Synchronous,
    TracesConfig, WorkerPoolConfig, WorkersConfig,
};
pub use store::{
    ChosenBy, DEFAULT_NATS_URL, NoStateDirectory, ServerUrl, StoreChoice, StoreUrl, StoreUrlError, StoreUrlErrorKind,
    choose_store,
};
pub use template::{Purpose, template};
pub use text::{Secret, UnknownWord, Url, redacted};

/// The default configuration as a commented YAML file: what is documented, what is in force, and the template for one's
/// own file.
pub const DEFAULT_CONFIG: &str = include_str!("../default-config.yaml");
