//! [`Metrics`]: what this process counts and measures, as text for Prometheus.
//!
//! Invariant: telling a metric never waits and, but for the first time of a (queue, kind), allocates nothing; a scrape
//! never waits for the store. The number of series is bounded. There is no global: a `Metrics` is a value, with a registry
//! of its own, and joins a user's registry by [`Metrics::collector`].
//!
//! Not here: who tells (the services and the worker, on their [`EventHook`](naq_services::EventHook)), and HTTP
//! ([`crate::http`]).

mod expose;
mod queues;
mod series;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use naq_models::event::{Event, EventType};
use naq_services::{EventService, EventSink, Measurement, storage::SharedStorage};
/// The version that [`Metrics::collector`] fits.
pub use prometheus_client;
use prometheus_client::{collector::Collector, registry::Registry};

use self::{
    queues::QueueNumbers,
    series::{Count, Ended, Histogram, Pair, Pairs, STORE_BOUNDS},
};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The kind of a job of which only the id is known, as when one is cancelled before it runs.
const UNKNOWN: &str = "unknown";

/// What this process counts. Cheap to clone; all clones are one.
///
/// It listens on a hook, and is asked for text:
///
/// ```
/// # use std::sync::Arc;
/// # use naq_services::EventHook;
/// # use naq_telemetry::metrics::Metrics;
/// let metrics = Metrics::new();
/// let hook = EventHook::new(None); // in a program: `manager.events().await?.hook()`
/// hook.add(Arc::new(metrics.clone()));
/// assert!(metrics.encode().ends_with("# EOF\n"));
/// ```
#[derive(Debug, Clone)]
pub struct Metrics {
    numbers: Arc<Numbers>,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub(crate) struct Numbers {
    pairs: Pairs,
    /// Held, lost, unknown.
    leases: [Count; 3],
    settle: Histogram,
    lag: Histogram,
    /// Slots and running jobs of the workers in this process.
    workers: Mutex<BTreeMap<Arc<str>, (usize, usize)>>,
    /// The schedulers in this process that lead.
    leaders: Mutex<BTreeSet<Arc<str>>>,
    queues: QueueNumbers,
    drops: OnceLock<Drops>,
}

/// Who knows how many events were dropped.
struct Drops(Arc<EventService>);

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Drops").field(&self.0.dropped()).finish()
    }
}

impl Metrics {
    /// Metrics that have counted nothing yet. To be added to a hook.
    #[must_use]
    pub fn new() -> Self {
        let numbers = Arc::new(Numbers {
            pairs: Pairs::default(),
            leases: Default::default(),
            settle: Histogram::new(STORE_BOUNDS),
            lag: Histogram::new(STORE_BOUNDS),
            workers: Mutex::default(),
            leaders: Mutex::default(),
            queues: QueueNumbers::default(),
            drops: OnceLock::new(),
        });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(&numbers)));
        Self { numbers, registry: Arc::new(registry) }
    }

    /// Shows the numbers of this store's queues from now on, which [`keep_queues_read`](Self::keep_queues_read) reads.
    pub fn set_store(&self, store: SharedStorage) {
        self.numbers.queues.set_store(store);
    }

    /// Shows how many events this service has dropped. The first one counts.
    pub fn set_events(&self, events: Arc<EventService>) {
        self.numbers.drops.get_or_init(|| Drops(events));
    }

    /// Reads the numbers of queues every few seconds while somebody scrapes. Never ends: to be run beside whatever answers
    /// scrapes, on any runtime.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn keep_queues_read(&self) {
        self.numbers.queues.keep_read().await;
    }

    /// These metrics for a registry of a user's own, by [`Registry::register_collector`].
    #[must_use]
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(Arc::clone(&self.numbers))
    }

    /// Everything as OpenMetrics text, of the type [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

/// What an event counts as.
enum Step {
    Enqueued,
    Started,
    Ended(Ended),
}

impl Step {
    fn of(event_type: &EventType) -> Option<Self> {
        Some(match event_type {
            EventType::Enqueued | EventType::Scheduled | EventType::Waiting => Self::Enqueued,
            EventType::Started => Self::Started,
            EventType::Completed => Self::Ended(Ended::Completed),
            EventType::Failed => Self::Ended(Ended::Failed),
            EventType::Cancelled => Self::Ended(Ended::Cancelled),
            EventType::RetryScheduled => Self::Ended(Ended::Retried),
            EventType::Snoozed => Self::Ended(Ended::Snoozed),
            _ => return None,
        })
    }
}

impl Numbers {
    fn count(&self, event: &Event, step: &Step, last: &mut Option<Arc<Pair>>) {
        let Some(queue) = &event.queue else { return };
        let pair = self.pairs.of(queue.as_str(), event.kind.as_deref().unwrap_or(UNKNOWN), last);
        match step {
            Step::Enqueued => pair.enqueued.add(1),
            Step::Started => {
                pair.started.add(1);
                pair.wait.observe(event.details.wait.unwrap_or_default());
            }
            Step::Ended(ended) => {
                pair.ended[*ended as usize].add(1);
                if let Some(ran) = event.details.duration {
                    pair.run.observe(ran);
                }
            }
        }
    }

    fn leaders(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn workers(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, (usize, usize)>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Metrics {
    fn record(&self, events: &[Event]) {
        let mut last = None;
        for event in events {
            if let Some(step) = Step::of(&event.event_type) {
                self.numbers.count(event, &step, &mut last);
                continue;
            }
            match (&event.event_type, &event.worker_id) {
                (EventType::LeaderElected, Some(holder)) => drop(self.numbers.leaders().insert(Arc::clone(holder))),
                (EventType::LeaderLost, Some(holder)) => drop(self.numbers.leaders().remove(holder)),
                _ => {}
            }
        }
    }

    fn measure(&self, measurement: &Measurement) {
        let numbers = &*self.numbers;
        match measurement {
            Measurement::LeasesExtended { held, lost, unknown } => {
                numbers.leases.iter().zip([held, lost, unknown]).for_each(|(count, n)| count.add(*n));
            }
            Measurement::Settled { took, .. } => numbers.settle.observe(*took),
            Measurement::Fired { late, .. } => numbers.lag.observe(*late),
            Measurement::Slots { worker_id, slots: 0, .. } => drop(numbers.workers().remove(worker_id)),
            Measurement::Slots { worker_id, slots, running } => {
                let mut workers = numbers.workers();
                match workers.get_mut(worker_id) {
                    Some(entry) => *entry = (*slots, *running),
                    None => drop(workers.insert(Arc::clone(worker_id), (*slots, *running))),
                }
            }
            _ => {}
        }
    }
}
