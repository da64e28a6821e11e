//! [`Worker`]: what a program builds and runs to do jobs.
//!
//! Invariant: everything that can be wrong with a worker's options is found when it is built; running it fails only for
//! what the world does. The work itself is in `serve`, on a thread of its own, so that handlers that burn the caller's
//! threads do not keep the worker from claiming, settling and stopping. Installs no signal handlers and closes no store.

use std::{collections::BTreeSet, fmt, io, pin::pin, sync::Arc, thread, time::Duration};

use naq_config::NaqConfig;
use naq_models::{Job, JobId, QueueName, RawJson, Timestamp, wire};
use naq_services::{EventHook, StorageError, context::States, storage::SharedStorage};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    AdjustError, Adjustable, Adjuster, ErasedHandler, HandlerRegistry, Health, Shutdown, adjust,
    handler::{BlockingHandler, DuplicateHandler, JobHandler, MissingState, blocking, typed},
    options::{QueueSpec, QueueSpecError, WorkerOptions},
    report::WorkerReport,
    scheduler::SchedulerError,
    serve,
};

/// The shortest lease: a heartbeat needs several tries within it.
pub const LEASE_MIN: Duration = Duration::from_secs(1);
/// How many jobs a worker runs at once where nothing is said.
pub const DEFAULT_CONCURRENCY: usize = 10;

/// Runs jobs of some queues with some handlers.
pub struct Worker {
    pub(crate) storage: SharedStorage,
    pub(crate) id: Arc<str>,
    pub(crate) host: String,
    pub(crate) name: Option<String>,
    pub(crate) queues: Vec<QueueSpec>,
    pub(crate) handlers: HandlerRegistry,
    pub(crate) states: Arc<States>,
    pub(crate) options: WorkerOptions,
    pub(crate) events: EventHook,
    pub(crate) health: Health,
    pub(crate) adjuster: Adjuster,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("id", &self.id)
            .field("queues", &self.queues)
            .field("handlers", &self.handlers)
            .field("adjuster", &self.adjuster)
            .finish_non_exhaustive()
    }
}

/// Builds a [`Worker`].
#[derive(Debug)]
#[must_use]
pub struct WorkerBuilder {
    storage: SharedStorage,
    name: Option<String>,
    queues: Vec<QueueSpec>,
    concurrency: usize,
    handlers: HandlerRegistry,
    duplicate: Option<DuplicateHandler>,
    states: States,
    options: WorkerOptions,
    events: EventHook,
    config: Option<Arc<NaqConfig>>,
    wrong_queue: Option<QueueSpecError>,
}

/// Why a worker cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It would run nothing.
    #[error("a worker's concurrency must be at least 1")]
    Concurrency,
    /// The same queue twice.
    #[error("queue {queue} is named twice")]
    DuplicateQueue {
        /// The queue.
        queue: QueueName,
    },
    /// Too short for a heartbeat.
    #[error("the lease of queue {queue} must be at least 1 s, not {lease:?}")]
    Lease {
        /// The queue.
        queue: QueueName,
        /// What was asked for.
        lease: Duration,
    },
    /// The worker would drop out of the list of workers between two signs of life.
    #[error("heartbeat_interval ({interval:?}) must be shorter than ttl ({ttl:?}) and not 0")]
    Heartbeat {
        /// Between two signs of life.
        interval: Duration,
        /// How long one counts.
        ttl: Duration,
    },
    /// The leader would lose its lock between two renewals.
    #[error("lock_renew_interval ({interval:?}) must be at most half of lock_ttl ({ttl:?}) and not 0")]
    Lock {
        /// Between two renewals.
        interval: Duration,
        /// How long one counts.
        ttl: Duration,
    },
    /// Every suspect would be a dead letter.
    #[error("max_crashes must be at least 1")]
    MaxCrashes,
    /// What was given is no queue.
    #[error(transparent)]
    Queue(#[from] QueueSpecError),
    /// Two handlers of one kind.
    #[error(transparent)]
    Handler(#[from] DuplicateHandler),
    /// A handler takes a shared value that was not given.
    #[error(transparent)]
    State(#[from] MissingState),
    /// Jobs could not be written.
    #[error(transparent)]
    WireFormat(#[from] wire::EncodeError),
}

impl From<AdjustError> for BuildError {
    fn from(error: AdjustError) -> Self {
        match error {
            AdjustError::Concurrency => Self::Concurrency,
            AdjustError::MaxCrashes => Self::MaxCrashes,
        }
    }
}

/// Why a worker ended before it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The store failed while the worker started, or for good.
    #[error("the worker could not {during}")]
    Store {
        /// What it was about to do.
        during: &'static str,
        /// What the store said.
        #[source]
        source: StorageError,
    },
    /// A job is stored in a form that this program was not built to read. It was handed back.
    #[error("job {job} was handed back: {reason}")]
    Format {
        /// One such job.
        job: JobId,
        /// What is missing.
        reason: String,
    },
    /// Half of the slots or more are stuck in handlers that do not end. The process should be ended: such handlers
    /// cannot be.
    #[error("{stuck} of {concurrency} slots are stuck in handlers that do not end")]
    Stuck {
        /// Slots that are stuck.
        stuck: usize,
        /// Slots there are.
        concurrency: usize,
    },
    /// The operating system gave no thread or no event loop.
    #[error("the worker could not start a thread")]
    Thread(#[source] io::Error),
    /// The thread that keeps leases alive has died.
    #[error("the heartbeat thread has died")]
    Heartbeat,
    /// The thread that serves the worker has died.
    #[error("the worker's own thread has died")]
    Panicked,
    /// The scheduler in this worker could not go on.
    #[error("the worker's scheduler failed")]
    Scheduler(#[source] SchedulerError),
}

impl Worker {
    /// A worker over a store, which the caller keeps and closes.
    pub fn builder(storage: SharedStorage) -> WorkerBuilder {
        WorkerBuilder {
            storage,
            name: None,
            queues: Vec::new(),
            concurrency: DEFAULT_CONCURRENCY,
            handlers: HandlerRegistry::default(),
            duplicate: None,
            states: States::default(),
            options: WorkerOptions::default(),
            events: EventHook::silent(),
            config: None,
            wrong_queue: None,
        }
    }

    /// Unique among all workers at all times.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether it lives and is ready, for probes; to be taken before it is run.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Changes what can change while it runs; to be taken before it is run.
    #[must_use]
    pub fn adjuster(&self) -> Adjuster {
        self.adjuster.clone()
    }

    /// Runs until it is asked to stop, or, with [`WorkerOptions::burst`], until nothing is left to do. Handlers run on
    /// the tokio runtime that this is called on.
    ///
    /// At the first step of `shutdown` it claims nothing more, hands back what it has not started, and lets running jobs
    /// end within the shutdown timeout; then, or at the second step, it fires their tokens and hands them back, their
    /// attempts unchanged.
    ///
    /// # Errors
    /// See [`WorkerError`]. After an error that came while it ran, it has stopped as if it had been asked to.
    ///
    /// # Cancel safety
    /// Dropping the future asks the worker to stop now; it does so on its own thread, without anybody waiting for it.
    pub async fn run(self, shutdown: Shutdown) -> Result<WorkerReport, WorkerError> {
        self.run_on(Handle::current(), shutdown).await
    }

    /// Runs beside some work and stops when that is done: at the first step, as [`run`](Self::run) says. What the work returned,
    /// and what the worker did.
    ///
    /// # Errors
    /// See [`WorkerError`]; the work is dropped then, unless it is done.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_until<T>(self, work: impl Future<Output = T>) -> Result<(T, WorkerReport), WorkerError> {
        let shutdown = Shutdown::new();
        let (mut running, mut work) = (pin!(self.run(shutdown.clone())), pin!(work));
        tokio::select! {
            value = &mut work => {
                shutdown.request();
                Ok((value, running.await?))
            }
            // A worker that ends by itself when nothing is left to do.
            report = &mut running => {
                let report = report?;
                Ok((work.await, report))
            }
        }
    }

    /// As [`run`](Self::run), with the tokio runtime for the handlers named. The returned future may be awaited on another
    /// runtime.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_on(self, handlers: Handle, shutdown: Shutdown) -> Result<WorkerReport, WorkerError> {
        let (ended, end) = oneshot::channel();
        let dropped = shutdown.clone();
        thread::Builder::new()
            .name("naq-worker".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let outcome = match runtime {
                    Ok(runtime) => runtime.block_on(serve::serve(self, handlers, shutdown)),
                    Err(error) => Err(WorkerError::Thread(error)),
                };
                // Nobody waits if the future of `run` was dropped.
                let _waiting = ended.send(outcome);
            })
            .map_err(WorkerError::Thread)?;
        let guard = StopOnDrop(Some(dropped));
        let outcome = end.await.unwrap_or(Err(WorkerError::Panicked));
        guard.disarm();
        outcome
    }
}

/// Stops the worker if the future of [`Worker::run`] is dropped.
struct StopOnDrop(Option<Shutdown>);

impl StopOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(shutdown) = &self.0 {
            shutdown.request_now();
        }
    }
}

impl WorkerBuilder {
    /// Adds a queue to serve: a name, `NAME:WEIGHT` or a [`QueueSpec`]. If none is added, the default queue is served.
    pub fn queue<Q: TryInto<QueueSpec, Error: Into<QueueSpecError>>>(mut self, queue: Q) -> Self {
        match queue.try_into() {
            Ok(queue) => self.queues.push(queue),
            Err(wrong) => self.wrong_queue = self.wrong_queue.or_else(|| Some(wrong.into())),
        }
        self
    }

    /// Adds queues to serve, in this order.
    pub fn queues(mut self, queues: impl IntoIterator<Item = QueueSpec>) -> Self {
        self.queues.extend(queues);
        self
    }

    /// How many jobs run at once; [`DEFAULT_CONCURRENCY`] if not called.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// A name for people, shown in the list of workers.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// An async function as the handler of a kind.
    pub fn handler<P: 'static>(self, kind: impl Into<String>, function: impl JobHandler<P>) -> Self {
        self.erased_handler(typed(kind, function))
    }

    /// A blocking function as the handler of a kind; it runs on the blocking pool.
    pub fn blocking_handler<P: 'static>(self, kind: impl Into<String>, function: impl BlockingHandler<P>) -> Self {
        self.erased_handler(blocking(kind, function))
    }

    /// A handler without its types.
    pub fn erased_handler(mut self, handler: Arc<dyn ErasedHandler>) -> Self {
        let inserted = self.handlers.insert(handler);
        self.duplicate = self.duplicate.or(inserted.err());
        self
    }

    /// Every `#[naq::job]` function that is linked into the program.
    pub fn registered_handlers(mut self) -> Self {
        let inserted = self.handlers.insert_registered();
        self.duplicate = self.duplicate.or(inserted.err());
        self
    }

    /// These handlers, instead of those given so far.
    pub fn handlers(mut self, handlers: HandlerRegistry) -> Self {
        self.handlers = handlers;
        self.duplicate = None;
        self
    }

    /// A value that handlers can ask for by its type.
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(value);
        self
    }

    /// Values that handlers can ask for by their types.
    pub fn states(mut self, values: States) -> Self {
        self.states.extend(values);
        self
    }

    /// Lets it end when nothing is pending, due or running in its queues; as [`WorkerOptions::burst`].
    pub fn burst(mut self) -> Self {
        self.options.burst = true;
        self
    }

    /// How it behaves.
    pub fn options(mut self, options: WorkerOptions) -> Self {
        self.options = options;
        self
    }

    /// What the queues are told by, beside what was said of them.
    pub(crate) fn configuration(mut self, config: Arc<NaqConfig>) -> Self {
        self.config = Some(config);
        self
    }

    /// Where to tell what happens; nobody hears of it if not called.
    pub fn events(mut self, events: EventHook) -> Self {
        self.events = events;
        self
    }

    /// Checks what was said and builds the worker.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(mut self) -> Result<Worker, BuildError> {
        if let Some(wrong) = self.wrong_queue {
            return Err(wrong.into());
        }
        if self.queues.is_empty() {
            let default = self.config.as_ref().map_or_else(QueueName::default, |config| config.queues.default.clone());
            self.queues.push(QueueSpec::new(default));
        }
        if let Some(config) = &self.config {
            self.queues = self.queues.into_iter().map(|queue| queue.configured(config)).collect();
        }
        self.check()?;
        let adjustable = Adjustable {
            concurrency: self.concurrency,
            paused: self.queues.iter().filter(|queue| queue.paused).map(|queue| queue.name.clone()).collect(),
            max_job_duration: self.options.max_job_duration,
            shutdown_timeout: self.options.shutdown_timeout,
            max_crashes: self.options.max_crashes,
        };
        adjust::check(&adjustable)?;
        let host = host();
        let id = format!("{}-{}-{:08x}", key_part(&host), std::process::id(), rand::random::<u32>());
        Ok(Worker {
            adjuster: Adjuster::new(adjustable),
            storage: self.storage,
            id: Arc::from(id),
            host,
            name: self.name,
            queues: self.queues,
            handlers: self.handlers,
            states: Arc::new(self.states),
            health: Health::new(self.options.ttl),
            options: self.options,
            events: self.events,
        })
    }

    fn check(&self) -> Result<(), BuildError> {
        let options = &self.options;
        if let Some(duplicate) = &self.duplicate {
            return Err(duplicate.clone().into());
        }
        self.handlers.check_states(&self.states)?;
        let mut seen = BTreeSet::new();
        for queue in &self.queues {
            if !seen.insert(&queue.name) {
                return Err(BuildError::DuplicateQueue { queue: queue.name.clone() });
            }
            let lease = queue.lease.unwrap_or(options.lease);
            if lease < LEASE_MIN {
                return Err(BuildError::Lease { queue: queue.name.clone(), lease });
            }
        }
        if options.heartbeat_interval.is_zero() || options.heartbeat_interval >= options.ttl {
            return Err(BuildError::Heartbeat { interval: options.heartbeat_interval, ttl: options.ttl });
        }
        if let Some(scheduler) = &options.scheduler
            && (scheduler.lock_renew_interval.is_zero() || scheduler.lock_renew_interval * 2 > scheduler.lock_ttl)
        {
            let (interval, ttl) = (scheduler.lock_renew_interval, scheduler.lock_ttl);
            return Err(BuildError::Lock { interval, ttl });
        }
        let probe = JobId::generate(Timestamp::EPOCH, [0; 10]);
        wire::encode(&Job::new(probe, "", RawJson::null(), Timestamp::EPOCH), options.wire_format)?;
        Ok(())
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A host's name as part of a key.
fn key_part(host: &str) -> String {
    let part: String =
        host.chars().take(40).map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    if part.is_empty() { "host".to_owned() } else { part }
}
