//! [`EventLogger`]: brings events to the store, in batches, from a thread of its own.
//!
//! Invariant: whoever tells an event never waits: at most `max_buffer_size` events are on their way, and more are dropped
//! and counted. A store that is down or full is tried again with pauses, with the same events; drops are reported once a
//! period, and as an event when the store takes events again. Handlers that burn the process's CPU threads do not hold
//! it up, because it has a thread; a store call that does not come back holds up nobody but it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use naq_config::EventsConfig;
use naq_models::event::{self, Event, EventBatch, EventBatches, EventType};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{
    EventSink,
    hook::next_id,
    queue::{EventQueue, Next},
};
use crate::{host_clock::host_time, storage::SharedStorage};

/// At the end, what waits has so long to be stored.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// One write takes at most about so many events.
const MOST_AT_ONCE: usize = 4 * event::BATCH_MAX_EVENTS;
/// Pauses after a failed write grow between these.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two reports of drops or failures.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How a logger behaves: `events` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLoggerOptions {
    /// So many waiting events are written at once.
    pub batch_size: usize,
    /// The longest time that an event waits for others.
    pub flush_interval: Duration,
    /// Events that may be on their way to the store; more are dropped.
    pub max_buffer_size: usize,
    /// Leave out heartbeats of workers.
    pub exclude_heartbeats: bool,
    /// Leave out completed jobs that ran shorter than this.
    pub min_job_duration: Duration,
}

impl From<&EventsConfig> for EventLoggerOptions {
    fn from(config: &EventsConfig) -> Self {
        Self {
            batch_size: config.batch_size as usize,
            flush_interval: config.flush_interval,
            max_buffer_size: config.max_buffer_size as usize,
            exclude_heartbeats: config.filters.exclude_heartbeats,
            min_job_duration: config.filters.min_job_duration,
        }
    }
}

impl EventLoggerOptions {
    fn wants(&self, event: &Event) -> bool {
        match event.event_type {
            EventType::WorkerHeartbeat => !self.exclude_heartbeats,
            EventType::Completed => event.details.duration.is_none_or(|ran| ran >= self.min_job_duration),
            _ => true,
        }
    }
}

/// Keeps events in a store. Dropping it stops it without a last write.
pub struct EventLogger {
    options: EventLoggerOptions,
    queue: Arc<EventQueue<EventBatches>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: tokio::sync::watch::Receiver<bool>,
}

impl fmt::Debug for EventLogger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLogger").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

impl EventLogger {
    /// Starts a logger. If the system gives it no thread, it drops every event.
    #[must_use]
    pub fn start(storage: SharedStorage, options: EventLoggerOptions) -> Self {
        let queue = Arc::new(EventQueue::new(options.max_buffer_size, options.batch_size));
        let (end, ended) = tokio::sync::watch::channel(false);
        let writer = Writer {
            storage,
            patience: options.flush_interval,
            queue: Arc::clone(&queue),
            reported: Reported::default(),
        };
        let body = move || {
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(writer.run()),
                Err(error) => give_up(&writer.queue, &error),
            }
            end.send_replace(true);
        };
        let thread = std::thread::Builder::new().name("naq-events".to_owned()).spawn(body);
        let thread = thread.inspect_err(|error| give_up(&queue, error)).ok();
        Self { queue, options, thread: Mutex::new(thread), ended }
    }

    /// Events that were dropped since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Waits until what was told before is stored or dropped.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn flushed(&self) {
        self.queue.empty().await;
    }

    /// Writes what waits, for at most two seconds, and ends. Idempotent.
    pub async fn close(&self) {
        self.queue.close();
        let mut ended = self.ended.clone();
        // A store call that does not come back is left behind with its thread.
        if timeout(2 * CLOSE_LIMIT, ended.wait_for(|ended| *ended)).await.is_err() {
            tracing::warn!("the last events could not be written in time");
            return;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes events has panicked");
        }
    }
}

fn give_up(queue: &EventQueue<EventBatches>, error: &std::io::Error) {
    tracing::error!(%error, "no thread for events: they are dropped");
    queue.close();
    queue.drop_events(queue.clear());
}

impl EventSink for EventLogger {
    fn record(&self, events: &[Event]) {
        self.queue.put(events.iter().filter(|event| self.options.wants(event)));
    }
}

impl Drop for EventLogger {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// What was said of drops.
#[derive(Default)]
struct Reported {
    at: Option<Instant>,
    dropped: u64,
    /// Drops that were told as an event.
    told: u64,
}

struct Writer {
    storage: SharedStorage,
    /// The longest time that an event waits for others.
    patience: Duration,
    queue: Arc<EventQueue<EventBatches>>,
    reported: Reported,
}

impl Writer {
    async fn run(mut self) {
        loop {
            match self.queue.next(self.patience, MOST_AT_ONCE) {
                Next::End => return,
                Next::Wait(until) => {
                    let until = until.unwrap_or_else(|| Instant::now() + REPORT_EVERY);
                    tokio::select! {
                        () = self.queue.woken() => {}
                        () = sleep_until(until) => {}
                    }
                }
                Next::Events(batches) => {
                    self.store(batches).await;
                    self.tell_drops().await;
                }
            }
            self.report_drops();
            if self.queue.is_closed() && timeout(CLOSE_LIMIT, self.finish()).await.is_err() {
                self.queue.drop_events(self.queue.clear());
                self.report_drops();
                return;
            }
        }
    }

    /// The last writes.
    async fn finish(&mut self) {
        while let Next::Events(batches) = self.queue.next(Duration::ZERO, MOST_AT_ONCE) {
            self.store(batches).await;
        }
    }

    /// Brings what was taken from the queue to the store, or drops it.
    async fn store(&mut self, batches: Vec<EventBatch>) {
        self.write(batches).await;
        self.queue.finished();
    }

    /// Stores batches; tries again while that may help.
    async fn write(&mut self, batches: Vec<EventBatch>) {
        let count = batches.iter().map(|batch| batch.count).sum();
        let mut pause = PAUSE_MIN;
        let mut closing = false;
        loop {
            match self.storage.append_events(batches.clone()).await {
                Ok(()) => return,
                Err(error) if error.is_transient() && !closing => {
                    if self.may_report() {
                        tracing::warn!(%error, "events cannot be stored at the moment; jobs go on");
                    }
                    // At the end there is one more try, without a pause.
                    closing = self.queue.is_closed();
                    if !closing {
                        self.pause(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
                Err(error) => {
                    self.queue.drop_events(count);
                    if self.may_report() {
                        tracing::warn!(%error, "events could not be stored and are dropped; jobs go on");
                    }
                    return;
                }
            }
        }
    }

    /// Sleeps, but not through the end.
    async fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.queue.is_closed() {
            tokio::select! {
                () = self.queue.woken() => {}
                () = sleep(until.saturating_duration_since(Instant::now())) => {}
            }
            self.report_drops();
        }
    }

    /// Whether it is time to say something: at most once a period.
    fn may_report(&mut self) -> bool {
        let due = self.reported.at.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
        if due {
            self.reported.at = Some(Instant::now());
        }
        due
    }

    fn report_drops(&mut self) {
        let total = self.queue.dropped();
        let dropped = total - self.reported.dropped;
        if dropped > 0 && self.may_report() {
            self.reported.dropped = total;
            tracing::warn!(dropped, total, "events were dropped; jobs went on");
        }
    }

    /// The store takes events again: who reads them is to know that some are missing.
    async fn tell_drops(&mut self) {
        let total = self.queue.dropped();
        let new = total - self.reported.told;
        if new == 0 {
            return;
        }
        let mut event = Event::new(next_id(host_time()), EventType::EventsDropped);
        event.details.count = Some(new);
        match self.storage.append_events(event::encode([&event])).await {
            Ok(()) => self.reported.told = total,
            Err(error) => tracing::debug!(%error, "the drop of events could not be told yet"),
        }
    }
}
