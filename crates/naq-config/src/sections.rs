//! The settings themselves: one struct per section, public fields, the defaults beside them.
//!
//! Invariant: `NaqConfig::default()` equals what `default-config.yaml` says (a test compares them), and every key there
//! is a field here. Serializing a section never writes a secret.
//!
//! Not here: where values come from (`load`) and which combinations make sense (`relations`).

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use naq_models::QueueName;
use serde::{Deserialize, Serialize};

use crate::{
    handlers::HandlerConfig,
    schedules::ScheduleConfig,
    serde_forms,
    store::{ServerUrl, StoreUrl},
    text::{ByteSize, LogFilter, Secret, words},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Every setting of naq. Build one by hand with `..NaqConfig::default()` and check it with [`NaqConfig::validate`], or
/// read one with [`load`](crate::load). Meant to be shared behind an `Arc`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NaqConfig {
    /// Where jobs are kept.
    pub storage: StorageConfig,
    /// The connection to NATS.
    pub nats: NatsConfig,
    /// Queues and their leases.
    pub queues: QueuesConfig,
    /// What a job gets when it does not say otherwise.
    pub jobs: JobsConfig,
    /// Worker processes.
    pub workers: WorkersConfig,
    /// The loop that fires what is due.
    pub scheduler: SchedulerConfig,
    /// The stream of what happened.
    pub events: EventsConfig,
    /// How long results are kept.
    pub results: ResultsConfig,
    /// How jobs are stored.
    pub serialization: SerializationConfig,
    /// Log lines.
    pub logging: LoggingConfig,
    /// Handlers in other languages, by job kind.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// Recurring jobs, by schedule id.
    pub schedules: BTreeMap<String, ScheduleConfig>,
}

/// `storage`: which store, and how the embedded one writes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// The store; unset means: see [`choose_store`](crate::choose_store).
    pub url: Option<StoreUrl>,
    /// What a commit of the embedded store waits for.
    pub synchronous: Synchronous,
}

words! {
    /// What a commit of the embedded store waits for.
    #[derive(Default)]
    Synchronous {
        /// The disk: an acknowledged job survives a power cut.
        #[default]
        Full = "full",
        /// The operating system: an acknowledged job survives a killed process, not a power cut.
        Normal = "normal",
    }
}

/// `nats`: servers, connection, and what the streams look like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// Servers of one cluster. Setting any chooses NATS as the store unless `storage.url` says otherwise.
    #[serde(deserialize_with = "serde_forms::server_list::deserialize")]
    pub servers: Vec<ServerUrl>,
    /// The name that the server shows for the connection.
    pub client_name: String,
    /// Attempts to reconnect before giving up; `None` never gives up.
    #[serde(with = "serde_forms::limit")]
    pub max_reconnect_attempts: Option<u32>,
    /// Pause between two attempts to reconnect.
    #[serde(with = "serde_forms::duration")]
    pub reconnect_time_wait: Duration,
    /// Longest wait for a connection to one server.
    #[serde(with = "serde_forms::duration")]
    pub connection_timeout: Duration,
    /// Longest wait for subscriptions to empty when a connection is closed.
    #[serde(with = "serde_forms::duration")]
    pub drain_timeout: Duration,
    /// Longest wait for buffered publishes to leave.
    #[serde(with = "serde_forms::duration")]
    pub flush_timeout: Duration,
    /// How often the connection is probed.
    #[serde(with = "serde_forms::duration")]
    pub ping_interval: Duration,
    /// Unanswered probes after which the connection counts as dead.
    pub max_outstanding_pings: u32,
    /// Copies of each stream in the cluster, 1 to 5.
    pub replicas: u8,
    /// Credentials.
    pub auth: NatsAuthConfig,
    /// Encryption.
    pub tls: NatsTlsConfig,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            client_name: "naq".to_owned(),
            max_reconnect_attempts: None,
            reconnect_time_wait: Duration::from_secs(2),
            connection_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            flush_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(20),
            max_outstanding_pings: 2,
            replicas: 1,
            auth: NatsAuthConfig::default(),
            tls: NatsTlsConfig::default(),
        }
    }
}

/// `nats.auth`: at most one of user and password, token, nkey seed, credentials file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsAuthConfig {
    /// User name, together with `password`.
    pub user: Option<String>,
    /// Password of `user`.
    pub password: Option<Secret>,
    /// A token.
    pub token: Option<Secret>,
    /// The seed of an nkey (`SU…`).
    pub nkey_seed: Option<Secret>,
    /// A `.creds` file with a JWT and its nkey.
    pub credentials_file: Option<PathBuf>,
}

/// `nats.tls`: encryption of the connection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsTlsConfig {
    /// Refuse a connection without TLS, whatever the URL's scheme says.
    pub enabled: bool,
    /// Start with the TLS handshake instead of after the server's greeting.
    pub first: bool,
    /// Certificates (PEM) of authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate (PEM), together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The key (PEM) of `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// `queues`: names and leases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueuesConfig {
    /// The queue used where none is named.
    pub default: QueueName,
    /// First part of every subject, stream and bucket on NATS: `[A-Za-z0-9_-]{1,64}`.
    pub prefix: String,
    /// The lease: how long a claimed job may go without a heartbeat before another worker gets it.
    #[serde(with = "serde_forms::duration")]
    pub ack_wait: Duration,
    /// Jobs of one queue and priority that may be claimed and unfinished at once, over all workers.
    pub max_ack_pending: u32,
    /// What differs for single queues.
    pub configs: BTreeMap<QueueName, QueueConfig>,
}

impl Default for QueuesConfig {
    fn default() -> Self {
        Self {
            default: QueueName::default(),
            prefix: "naq".to_owned(),
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 20_000,
            configs: BTreeMap::new(),
        }
    }
}

impl QueuesConfig {
    /// The lease of a queue's jobs.
    #[must_use]
    pub fn ack_wait_of(&self, queue: &QueueName) -> Duration {
        self.configs.get(queue).and_then(|config| config.ack_wait).unwrap_or(self.ack_wait)
    }

    /// How many jobs of one queue and priority may be claimed at once.
    #[must_use]
    pub fn max_ack_pending_of(&self, queue: &QueueName) -> u32 {
        self.configs.get(queue).and_then(|config| config.max_ack_pending).unwrap_or(self.max_ack_pending)
    }
}

/// `queues.configs.<queue>`: unset means as in `queues`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// See [`QueuesConfig::ack_wait`].
    #[serde(with = "serde_forms::optional_duration")]
    pub ack_wait: Option<Duration>,
    /// See [`QueuesConfig::max_ack_pending`].
    pub max_ack_pending: Option<u32>,
}

/// `jobs`: what a job gets when its producer does not say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobsConfig {
    /// Runs after the first one that may fail: `n` means at most `n + 1` runs.
    pub max_retries: u32,
    /// Longest time of one run.
    #[serde(with = "serde_forms::duration")]
    pub timeout: Duration,
    /// Worker processes that may die with a job before it becomes a dead letter.
    pub max_crashes: u32,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self { max_retries: 3, timeout: HOUR, max_crashes: 3 }
    }
}

/// `workers`: one worker process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkersConfig {
    /// Jobs that run at once.
    pub concurrency: u32,
    /// How often a worker says in the list of workers that it is alive.
    #[serde(with = "serde_forms::duration")]
    pub heartbeat_interval: Duration,
    /// How long after its last sign of life a worker stays in the list; over `heartbeat_interval`.
    #[serde(with = "serde_forms::duration")]
    pub ttl: Duration,
    /// The longest timeout that a worker grants, whatever the job asks for.
    #[serde(with = "serde_forms::duration")]
    pub max_job_duration: Duration,
    /// How long a stopping worker lets its jobs finish before it hands them back.
    #[serde(with = "serde_forms::duration")]
    pub shutdown_timeout: Duration,
    /// Named sets of queues, for `worker start` by name.
    pub pools: BTreeMap<String, WorkerPoolConfig>,
}

impl Default for WorkersConfig {
    fn default() -> Self {
        Self {
            concurrency: 10,
            heartbeat_interval: Duration::from_secs(15),
            ttl: MINUTE,
            max_job_duration: DAY,
            shutdown_timeout: Duration::from_secs(30),
            pools: BTreeMap::new(),
        }
    }
}

/// `workers.pools.<name>`: what a worker of that pool serves.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerPoolConfig {
    /// Queues in order, each with an optional weight (`mail:3`).
    pub queues: Vec<String>,
    /// Jobs that run at once; unset means `workers.concurrency`.
    pub concurrency: Option<u32>,
}

/// `scheduler`: the loop that fires what is due, run by the worker that holds the leader's lock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Whether workers take part.
    pub enabled: bool,
    /// How long the lock outlives its holder.
    #[serde(with = "serde_forms::duration")]
    pub lock_ttl: Duration,
    /// How often the holder renews the lock; under `lock_ttl`.
    #[serde(with = "serde_forms::duration")]
    pub lock_renew_interval: Duration,
    /// Failures in a row after which a schedule is marked as failed.
    pub max_failures: u32,
    /// The longest time between two looks for what is due; changes are noticed at once.
    #[serde(with = "serde_forms::duration")]
    pub scan_interval: Duration,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            lock_ttl: Duration::from_secs(10),
            lock_renew_interval: Duration::from_secs(3),
            max_failures: 5,
            scan_interval: Duration::from_secs(1),
        }
    }
}

/// `events`: what happened to jobs, workers and schedules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// Whether events are recorded.
    pub enabled: bool,
    /// Events per write.
    pub batch_size: u32,
    /// The longest time that an event waits for its batch to fill.
    #[serde(with = "serde_forms::duration")]
    pub flush_interval: Duration,
    /// Events that may wait in memory; more are dropped and counted.
    pub max_buffer_size: u32,
    /// How they are kept.
    pub stream: EventStreamConfig,
    /// Which are recorded.
    pub filters: EventFiltersConfig,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            batch_size: 100,
            flush_interval: Duration::from_millis(200),
            max_buffer_size: 10_000,
            stream: EventStreamConfig::default(),
            filters: EventFiltersConfig::default(),
        }
    }
}

/// `events.stream`: retention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventStreamConfig {
    /// The stream's name on NATS.
    pub name: String,
    /// Age at which events are dropped.
    #[serde(with = "serde_forms::duration")]
    pub max_age: Duration,
    /// Size at which the oldest are dropped.
    pub max_bytes: ByteSize,
    /// Copies in the cluster, 1 to 5.
    pub replicas: u8,
}

impl Default for EventStreamConfig {
    fn default() -> Self {
        Self { name: "NAQ_JOB_EVENTS".to_owned(), max_age: 7 * DAY, max_bytes: ByteSize(1_000_000_000), replicas: 1 }
    }
}

/// `events.filters`: what is not recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventFiltersConfig {
    /// Leave out the heartbeats of workers.
    pub exclude_heartbeats: bool,
    /// Leave out completed jobs that ran shorter than this. A bare number is milliseconds.
    #[serde(with = "serde_forms::duration_or_millis")]
    pub min_job_duration: Duration,
}

impl Default for EventFiltersConfig {
    fn default() -> Self {
        Self { exclude_heartbeats: true, min_job_duration: Duration::ZERO }
    }
}

/// `results`: what a job returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResultsConfig {
    /// How long a result is kept; 0 keeps none.
    #[serde(with = "serde_forms::duration")]
    pub ttl: Duration,
    /// How often expired results are swept where the store does not expire them itself.
    #[serde(with = "serde_forms::duration")]
    pub cleanup_interval: Duration,
}

impl Default for ResultsConfig {
    fn default() -> Self {
        Self { ttl: 7 * DAY, cleanup_interval: HOUR }
    }
}

/// `serialization`: how jobs are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SerializationConfig {
    /// The form of new jobs; workers read both.
    pub job_serializer: JobSerializer,
    /// Compression of streams on NATS (server 2.10 and later).
    pub compression: Compression,
    /// The largest job or result, before the headroom of 64 KiB; a server's own limit may be lower.
    pub max_payload: ByteSize,
}

impl Default for SerializationConfig {
    fn default() -> Self {
        Self {
            job_serializer: JobSerializer::default(),
            compression: Compression::default(),
            max_payload: ByteSize(1 << 20),
        }
    }
}

words! {
    /// The form in which new jobs are stored.
    #[derive(Default)]
    JobSerializer {
        /// Readable by people and other languages.
        #[default]
        Json = "json",
        /// Compact; needs the cargo feature `bincode`.
        Bincode = "bincode",
    }
}

words! {
    /// Compression of streams on NATS.
    #[derive(Default)]
    Compression {
        /// As published.
        #[default]
        None = "none" | "false",
        /// S2, by the server.
        S2 = "s2" | "true",
    }
}

/// `logging`: what is written where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// Which lines.
    pub level: LogFilter,
    /// For a person (`dev`) or for a collector (`prod`).
    pub mode: LogMode,
    /// `text` or `json`; `auto` follows `mode`.
    pub format: LogFormat,
    /// The file to write to.
    pub file: Option<PathBuf>,
    /// Whether to write to `file`; unset means: if `file` is set.
    pub to_file_enabled: Option<bool>,
    /// Size at which the file is rotated.
    pub max_size: ByteSize,
    /// Rotated files that are kept.
    pub backup_count: u32,
    /// Age at which rotated files are removed.
    #[serde(with = "serde_forms::duration")]
    pub retention: Duration,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        Self {
            level: LogFilter::default(),
            mode: LogMode::default(),
            format: LogFormat::default(),
            file: None,
            to_file_enabled: None,
            max_size: ByteSize(100_000_000),
            backup_count: 5,
            retention: 30 * DAY,
        }
    }
}

impl LoggingConfig {
    /// The file to write to, if lines go to a file: `file`, or `naq.log` if only `to_file_enabled` is set.
    #[must_use]
    pub fn target_file(&self) -> Option<PathBuf> {
        match (self.to_file_enabled, &self.file) {
            (Some(false), _) | (None, None) => None,
            (_, Some(file)) => Some(file.clone()),
            (Some(true), None) => Some(PathBuf::from("naq.log")),
        }
    }

    /// Whether lines are JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        match self.format {
            LogFormat::Auto => self.mode == LogMode::Prod,
            LogFormat::Text => false,
            LogFormat::Json => true,
        }
    }
}

words! {
    /// For whom log lines are written.
    #[derive(Default)]
    LogMode {
        /// A person: text, coloured on a terminal.
        #[default]
        Dev = "dev" | "development",
        /// A collector: one JSON object a line.
        Prod = "prod" | "production",
    }
}

words! {
    /// The form of log lines.
    #[derive(Default)]
    LogFormat {
        /// As `logging.mode` says.
        #[default]
        Auto = "auto",
        /// For reading.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}
