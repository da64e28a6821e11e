//! Events: telling what happened, keeping it, and looking at it: [`EventHook`], [`EventLogger`], [`EventService`].
//!
//! Invariant: telling never waits, never fails and never slows the teller down: what cannot be kept is dropped and
//! counted. Where nobody listens, no event is made at all.
//!
//! Not here: what an event is and how a batch of them is written ([`naq_models::event`]), where batches lie (the
//! [`Storage`](crate::Storage)), who tells what (the services and the worker).

use std::{sync::Arc, time::Duration};

use naq_config::EventsConfig;
use naq_models::{
    JobId, JobResult, Timestamp,
    event::{self, Event, EventFilter, EventStats, EventStatsBuilder, fingerprint},
};

use crate::{
    StorageError,
    manager::{Service, ServiceError, ServiceManager},
    storage::{EventRange, SharedStorage, Sighting, StoredEvents},
};

mod hook;
mod logger;
mod measurement;
mod processor;
mod queue;
mod stream;
#[cfg(all(test, feature = "sqlite"))]
mod tests;

pub use hook::{EventHook, EventSink};
pub use logger::{EventLogger, EventLoggerOptions};
pub use measurement::Measurement;
pub use processor::EventProcessor;
pub use stream::EventStream;

/// How far the clocks of those who tell events may be apart for the history of a job to be found whole.
const CLOCK_SLACK: Duration = Duration::from_secs(600);
/// Batches per read.
const PAGE: usize = 64;

/// Events of a store: told, kept, read, followed, counted.
#[derive(Debug)]
pub struct EventService {
    storage: SharedStorage,
    hook: EventHook,
    logger: Option<Arc<EventLogger>>,
    processors: processor::Processors,
}

impl EventService {
    /// A service over a store. With `events.enabled = false` it can read events and keeps none; who listens on its
    /// [`hook`](Self::hook), such as metrics, hears them all the same.
    #[must_use]
    pub fn new(storage: SharedStorage, config: &EventsConfig) -> Self {
        let hook = EventHook::new(storage.virtual_clock());
        let logger = config.enabled.then(|| {
            let logger = Arc::new(EventLogger::start(Arc::clone(&storage), EventLoggerOptions::from(config)));
            hook.add(Arc::clone(&logger) as Arc<dyn EventSink>);
            logger
        });
        Self { storage, hook, logger, processors: Default::default() }
    }

    /// Where to tell events.
    #[must_use]
    pub fn hook(&self) -> &EventHook {
        &self.hook
    }

    /// Keeps events that somebody else has made. Does not wait.
    pub fn log(&self, events: &[Event]) {
        self.hook.tell(events);
    }

    /// Events of this process that were dropped because the store was down, full or slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.logger.as_ref().map_or(0, |logger| logger.dropped())
    }

    /// Lets a processor see every event that this process tells from now on, beside the store, in a thread of its own.
    /// `false` if events are turned off, and it will see none.
    pub fn register_event_processor(&self, processor: Arc<dyn EventProcessor>) -> bool {
        if self.logger.is_some() {
            self.hook.add(self.processors.start(processor));
        }
        self.logger.is_some()
    }

    /// Waits until what was told before this call is stored or dropped, for at most `limit`; `false` if it took longer.
    pub async fn flush(&self, limit: Duration) -> bool {
        match &self.logger {
            Some(logger) => tokio::time::timeout(limit, logger.flushed()).await.is_ok(),
            None => true,
        }
    }

    /// Everything that is kept of one job, oldest first.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn history(&self, id: &JobId) -> Result<Vec<Event>, StorageError> {
        let range = EventRange {
            since: id.generated_at().map(|made| made.saturating_sub(CLOCK_SLACK)),
            until: self.ended_at(id).await?.map(|ended| ended.saturating_add(CLOCK_SLACK)),
            job: Some(fingerprint(id)),
            ..EventRange::first(PAGE)
        };
        let filter = EventFilter::of_job(id.clone());
        let mut found = Vec::new();
        self.scan(range, |event| found.extend(filter.matches(&event).then_some(event))).await?;
        // A batch may have been stored twice when its answer was lost.
        found.sort_by_key(|event| event.id);
        found.dedup_by_key(|event| event.id);
        Ok(found)
    }

    /// When a job ended, if nothing of it goes on.
    async fn ended_at(&self, id: &JobId) -> Result<Option<Timestamp>, StorageError> {
        let sightings = match self.storage.get_job(id).await {
            Ok(sightings) => sightings,
            Err(error) if error.kind() == crate::StorageErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut ended = None;
        for sighting in sightings {
            let time = match sighting {
                Sighting::Ended(result) => JobResult::decode(&result.body).ok().map(|result| result.finished_at),
                Sighting::Dead(letter) => Some(letter.address.stored_at),
                Sighting::Queued { .. } | Sighting::Scheduled(_) => None,
            };
            let Some(time) = time else { return Ok(None) };
            ended = ended.max(Some(time));
        }
        Ok(ended)
    }

    /// The newest `count` events that a filter wants, oldest first, and the position to follow the log from.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn recent(&self, filter: &EventFilter, count: usize) -> Result<(Vec<Event>, u64), StorageError> {
        let bounds = self.storage.event_bounds().await?;
        let (mut found, mut upto) = (Vec::new(), bounds.last);
        while found.len() < count && upto >= bounds.first && upto > 0 {
            let after = upto.saturating_sub(PAGE as u64).max(bounds.first - 1);
            let range = EventRange { after, upto, ..range_of(filter) };
            let mut older = Vec::new();
            self.scan(range, |event| older.extend(filter.matches(&event).then_some(event))).await?;
            older.append(&mut found);
            found = older;
            upto = after;
        }
        found.drain(..found.len().saturating_sub(count));
        Ok((found, bounds.last))
    }

    /// Follows events that a filter wants, from a position of [`recent`](Self::recent) on.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn stream(&self, filter: EventFilter, after: u64) -> Result<EventStream, StorageError> {
        Ok(EventStream::new(self.storage.tail_events(after).await?, filter))
    }

    /// Numbers over the events that a filter wants; its times are the window, which ends now if it does not say.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn stats(&self, filter: &EventFilter) -> Result<EventStats, StorageError> {
        let mut builder = EventStatsBuilder::default();
        let mut oldest = None;
        self.scan(range_of(filter), |event| {
            if filter.matches(&event) {
                oldest = Some(oldest.map_or(event.time, |oldest: Timestamp| oldest.min(event.time)));
                builder.add(&event);
            }
        })
        .await?;
        let until = match filter.until {
            Some(until) => until,
            None => self.storage.now().await?,
        };
        Ok(builder.finish(filter.since.or(oldest).unwrap_or(until), until))
    }

    /// Gives every event of a range away, in the order of the log.
    async fn scan(&self, mut range: EventRange, mut take: impl FnMut(Event)) -> Result<(), StorageError> {
        loop {
            let page = self.storage.read_events(&range).await?;
            page.batches.iter().flat_map(events).for_each(&mut take);
            match page.next {
                Some(next) => range.after = next,
                None => return Ok(()),
            }
        }
    }
}

/// The part of the log that a filter looks at.
fn range_of(filter: &EventFilter) -> EventRange {
    EventRange {
        since: filter.since.map(|since| since.saturating_sub(CLOCK_SLACK)),
        until: filter.until.map(|until| until.saturating_add(CLOCK_SLACK)),
        job: filter.job.as_ref().map(fingerprint),
        ..EventRange::first(PAGE)
    }
}

/// The events of a batch; what cannot be read is passed over, with a warning.
fn events(batch: &StoredEvents) -> Vec<Event> {
    event::decode(&batch.body).unwrap_or_else(|error| {
        tracing::warn!(position = batch.position, %error, "events that cannot be read are passed over");
        Vec::new()
    })
}

impl Service for EventService {
    const NAME: &'static str = "event service";

    async fn build(manager: &ServiceManager) -> Result<Self, ServiceError> {
        Ok(Self::new(manager.storage().await?, &manager.config().events))
    }

    async fn close(&self) {
        if let Some(logger) = &self.logger {
            logger.close().await;
        }
        self.processors.close().await;
    }
}
