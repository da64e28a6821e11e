//! The settings themselves: one struct per section, public fields, the defaults beside them (`nats`, `logging`,
//! `handlers` and `schedules` have modules of their own).
//!
//! Invariant: `NaqConfig::default()` equals what `default-config.yaml` says (a test compares them), and every key there
//! is a field here. Serializing a section never writes a secret.
//!
//! Not here: where values come from (`load`) and which combinations make sense (`relations`).

use std::{collections::BTreeMap, time::Duration};

use naq_models::QueueName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    byte_size::ByteSize,
    handlers::HandlerConfig,
    listen::ListenAddress,
    logging::LoggingConfig,
    nats::NatsConfig,
    schedules::ScheduleConfig,
    serde_forms,
    store::StoreUrl,
    text::{Url, words},
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
    /// OpenTelemetry.
    pub traces: TracesConfig,
    /// Handlers in other languages, by job kind.
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// Recurring jobs, by schedule id.
    pub schedules: BTreeMap<String, ScheduleConfig>,
}

impl NaqConfig {
    /// Every setting by its dotted name, with its value as JSON. What is secret is not in it.
    #[must_use]
    pub fn settings(&self) -> BTreeMap<String, Value> {
        fn walk(key: String, value: Value, settings: &mut BTreeMap<String, Value>) {
            match value {
                Value::Object(entries) if !entries.is_empty() => {
                    for (name, value) in entries {
                        let key = if key.is_empty() { name } else { format!("{key}.{name}") };
                        walk(key, value, settings);
                    }
                }
                value => drop(settings.insert(key, value)),
            }
        }
        let mut settings = BTreeMap::new();
        let all = serde_json::to_value(self).expect("settings are only what JSON can say");
        walk(String::new(), all, &mut settings);
        settings
    }
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

    /// The queues from which workers with this configuration claim nothing.
    pub fn paused(&self) -> impl Iterator<Item = &QueueName> {
        self.configs.iter().filter(|(_, config)| config.paused).map(|(queue, _)| queue)
    }
}

/// `queues.configs.<queue>`: a limit that is unset is as in `queues`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// See [`QueuesConfig::ack_wait`].
    #[serde(with = "serde_forms::optional_duration")]
    pub ack_wait: Option<Duration>,
    /// See [`QueuesConfig::max_ack_pending`].
    pub max_ack_pending: Option<u32>,
    /// Whether workers with this configuration claim nothing from it.
    pub paused: bool,
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
    /// Where the worker answers `/metrics`, `/healthz` and `/readyz`; nowhere if unset.
    pub listen: Option<ListenAddress>,
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
            listen: None,
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
    /// How often the holder renews the lock; at most half of `lock_ttl`.
    #[serde(with = "serde_forms::duration")]
    pub lock_renew_interval: Duration,
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
    /// So many waiting events are written at once.
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
            batch_size: 500,
            flush_interval: Duration::from_millis(200),
            max_buffer_size: 10_000,
            stream: EventStreamConfig::default(),
            filters: EventFiltersConfig::default(),
        }
    }
}

/// `traces`: spans for a collector of OpenTelemetry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// The collector's address, for OTLP over HTTP; no spans are exported if unset.
    pub endpoint: Option<Url>,
    /// What this program is called in traces.
    pub service_name: String,
    /// The share that is kept of the traces that begin here, 0 to 1. Others are kept if who began them keeps them.
    pub sample: f64,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self { endpoint: None, service_name: "naq".to_owned(), sample: 1.0 }
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
