//! The log of events, as simple as the seam allows: it ignores what is only said to spare work.
//!
//! Invariant: a position is the number of batches that came before, plus one, also after the oldest were dropped.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use naq_services::storage::{EventBatch, EventBounds, EventFeed, EventPage, EventRange, StoredEvents};
use tokio::sync::watch;

use super::state::Shared;

/// Batches kept.
const KEPT: usize = 10_000;

#[derive(Default)]
pub(crate) struct EventLog {
    last: u64,
    batches: VecDeque<StoredEvents>,
}

impl EventLog {
    pub(crate) fn append(&mut self, batches: Vec<EventBatch>) {
        for batch in batches {
            self.last += 1;
            self.batches.push_back(StoredEvents { position: self.last, body: batch.body.into() });
        }
        let over = self.batches.len().saturating_sub(KEPT);
        self.batches.drain(..over);
    }

    pub(crate) fn bounds(&self) -> EventBounds {
        EventBounds { first: self.batches.front().map_or(self.last + 1, |batch| batch.position), last: self.last }
    }

    pub(crate) fn read(&self, range: &EventRange) -> EventPage {
        let in_range = |batch: &&StoredEvents| batch.position > range.after && batch.position <= range.upto;
        let mut found = self.batches.iter().filter(in_range);
        let batches: Vec<StoredEvents> = found.by_ref().take(range.limit).cloned().collect();
        let next = batches.last().filter(|_| found.next().is_some()).map(|last| last.position);
        EventPage { batches, next }
    }
}

pub(crate) struct MemoryEventFeed {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    after: u64,
}

impl MemoryEventFeed {
    pub(crate) fn new(shared: Arc<Shared>, after: u64) -> Self {
        Self { changes: shared.changes.subscribe(), shared, after }
    }
}

#[async_trait]
impl EventFeed for MemoryEventFeed {
    async fn next(&mut self) -> Vec<StoredEvents> {
        loop {
            let range = EventRange { after: self.after, ..EventRange::first(64) };
            let page = self.shared.look().events.read(&range);
            if let Some(last) = page.batches.last() {
                self.after = last.position;
                return page.batches;
            }
            // The sender lives in `shared`, which is held here.
            self.changes.changed().await.ok();
        }
    }
}
