//! [`EventStream`]: events followed live.
//!
//! Invariant: what a filter wants comes in the order of the log, each event once.

use std::{collections::VecDeque, fmt};

use naq_models::event::{Event, EventFilter};

use super::events;
use crate::storage::EventFeed;

/// Events followed live. See [`EventService::stream`](super::EventService::stream).
pub struct EventStream {
    feed: Box<dyn EventFeed>,
    filter: EventFilter,
    ready: VecDeque<Event>,
}

impl EventStream {
    pub(super) fn new(feed: Box<dyn EventFeed>, filter: EventFilter) -> Self {
        Self { feed, filter, ready: VecDeque::new() }
    }

    /// The next event that the filter wants. Waits while there is none; never ends.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost by dropping the future.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let batches = self.feed.next().await;
            let wanted = batches.iter().flat_map(events).filter(|event| self.filter.matches(event));
            self.ready.extend(wanted);
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("filter", &self.filter).finish_non_exhaustive()
    }
}
