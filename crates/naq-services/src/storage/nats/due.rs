//! The due feed: what waits for its time, as an index in memory that a watch of headers keeps up to date.
//!
//! Invariant: an entry is in the index at its latest revision and time, or was found to be gone. Removals make no message:
//! whoever removes an entry tells the feeds of its process at once and all others by a notice; if that gets lost, the entry
//! is found missing when it is due. At most 260 bytes per waiting job.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use async_nats::Subscriber;
use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use naq_models::{JobId, Timestamp};

use super::{
    Shared,
    scheduled::{due_at, is_promoting, waits_for_jobs},
};
use crate::{
    storage::{DueEntry, DueFeed, Result, WaitingEntry},
    streams::{StoredMessage, Tail, TailEvent},
};

/// Removals remembered before those that are settled are forgotten.
const REMOVED_MAX: usize = 1024;

/// The feeds of this process, to be told what has left the scheduled store.
#[derive(Debug, Default)]
pub(super) struct Departures {
    feeds: Mutex<Vec<Weak<Mutex<Index>>>>,
}

impl Departures {
    fn join(&self, index: &Arc<Mutex<Index>>) {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(Arc::downgrade(index));
    }

    fn tell(&self, what: impl Fn(&mut Index)) {
        for feed in self.feeds.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            what(&mut lock(&feed));
        }
    }

    /// An entry was removed, up to a revision.
    pub(super) fn gone(&self, id: &JobId, revision: u64) {
        self.tell(|index| index.gone(id, revision));
    }

    /// The revision at which feeds know an entry.
    pub(super) fn revision(&self, id: &JobId) -> Option<u64> {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |feed: Arc<Mutex<Index>>| lock(&feed).revision(id);
        feeds.iter().filter_map(Weak::upgrade).filter_map(known).max()
    }
}

#[derive(Debug, Default)]
struct Index {
    by_time: BTreeSet<(Timestamp, JobId)>,
    by_id: HashMap<JobId, (Timestamp, u64)>,
    /// Entries that wait for other jobs and have not been reported, with their revisions.
    waiting: BTreeMap<JobId, u64>,
    /// Removed, although the message that stored it may still be on its way here.
    removed: HashMap<JobId, u64>,
    /// Set when the soonest time may have become sooner, or when more entries wait for other jobs.
    news: bool,
    /// Whether everything is here that was there when the tail last began.
    current: bool,
}

impl Index {
    fn remove(&mut self, id: &JobId) {
        if let Some((time, _)) = self.by_id.remove(id) {
            self.by_time.remove(&(time, id.clone()));
        }
        self.waiting.remove(id);
    }

    fn revision(&self, id: &JobId) -> Option<u64> {
        self.by_id.get(id).map(|(_, revision)| *revision).or_else(|| self.waiting.get(id).copied())
    }

    fn gone(&mut self, id: &JobId, revision: u64) {
        match self.revision(id) {
            Some(known) if known > revision => {}
            Some(known) if known == revision => self.remove(id),
            _ => {
                self.remove(id);
                self.removed.insert(id.clone(), revision);
            }
        }
    }

    fn put(&mut self, id: JobId, message: &StoredMessage) {
        if self.removed.len() > REMOVED_MAX {
            // Messages come in order: what is older than this one has come, or never will.
            self.removed.retain(|_, revision| *revision > message.sequence);
        }
        if let Some(removed) = self.removed.get(&id) {
            let stale = message.sequence <= *removed;
            if message.sequence >= *removed {
                self.removed.remove(&id);
            }
            if stale {
                return;
            }
        }
        let unreported = self.waiting.contains_key(&id);
        self.remove(&id);
        if let Some(time) = due_at(message) {
            self.news |= self.by_time.first().is_none_or(|(first, _)| time < *first);
            self.by_time.insert((time, id.clone()));
            self.by_id.insert(id, (time, message.sequence));
        } else if waits_for_jobs(message) && (unreported || !self.current || !is_promoting(message)) {
            // What a leader moves at this moment is no news, unless that leader dies: then it is among the unreported of a
            // standby, or found when a feed is opened.
            self.waiting.insert(id, message.sequence);
            self.news = true;
        }
    }
}

fn lock(index: &Mutex<Index>) -> std::sync::MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A due feed.
pub(super) struct Feed {
    shared: Arc<Shared>,
    index: Arc<Mutex<Index>>,
    tail: Tail,
    /// What other processes removed.
    notices: Subscriber,
}

impl Feed {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self> {
        let bucket = shared.names.scheduled_bucket();
        let tail = Tail::new(
            shared.streams.clone(),
            shared.names.scheduled_stream(),
            crate::kv_stores::subject(&bucket, ">"),
            true,
        );
        let notices = shared.connection.subscribe(format!("{}.{bucket}.*", shared.names.gone())).await;
        let notices = notices.map_err(|failure| shared.streams.error("open due feed", failure.into()))?;
        let index = Arc::default();
        shared.due.join(&index);
        Ok(Self { shared, index, tail, notices })
    }

    fn take(&mut self, event: TailEvent) {
        let mut index = lock(&self.index);
        match event {
            // Removals are forgotten too: a killed server brings back entries that were replaced and then removed, and reuses
            // sequences that it lost. One that is removed at this very moment is found missing when it is due.
            TailEvent::Restart => *index = Index { news: true, ..Index::default() },
            TailEvent::Message(message) => {
                if let Some(id) = self.shared.names.read_scheduled(&message.subject) {
                    index.put(id, &message);
                }
            }
            TailEvent::Current => {
                index.news = true;
                // Whatever was removed before has not been reported, and will not be.
                index.removed.clear();
                index.current = true;
            }
        }
    }

    fn notice(&mut self, notice: &async_nats::Message) {
        let id = notice.subject.rsplit_once('.').and_then(|(_, id)| JobId::new(id).ok());
        let revision = std::str::from_utf8(&notice.payload).ok().and_then(|text| text.parse().ok());
        if let (Some(id), Some(revision)) = (id, revision) {
            lock(&self.index).gone(&id, revision);
        }
    }

    /// Takes in what has arrived; waits until the index is complete.
    async fn catch_up(&mut self) -> Result<()> {
        let patience = self.shared.connection.request_timeout();
        loop {
            while let Some(event) = self.tail.next().now_or_never() {
                self.take(event);
            }
            while let Some(notice) = self.notices.next().now_or_never().flatten() {
                self.notice(&notice);
            }
            if lock(&self.index).current {
                return Ok(());
            }
            match tokio::time::timeout(patience, self.tail.next()).await {
                Ok(event) => self.take(event),
                Err(_) => {
                    let failure = crate::connection::RequestFailure::Timeout(patience);
                    return Err(self.shared.streams.error("read what is due", failure.into()));
                }
            }
        }
    }
}

#[async_trait]
impl DueFeed for Feed {
    async fn due(&mut self, now: Timestamp, max: usize) -> Result<Vec<DueEntry>> {
        self.catch_up().await?;
        let index = lock(&self.index);
        let due = index.by_time.iter().take_while(|(time, _)| *time <= now).take(max);
        Ok(due
            .filter_map(|(time, id)| {
                let (_, revision) = index.by_id.get(id)?;
                Some(DueEntry { id: id.clone(), run_at: *time, revision: *revision })
            })
            .collect())
    }

    async fn next_due(&mut self) -> Result<Option<Timestamp>> {
        self.catch_up().await?;
        let mut index = lock(&self.index);
        index.news = false;
        Ok(index.by_time.first().map(|(time, _)| *time))
    }

    async fn waiting(&mut self, max: usize) -> Result<Vec<WaitingEntry>> {
        self.catch_up().await?;
        let mut index = lock(&self.index);
        let mut some = Vec::with_capacity(max.min(index.waiting.len()));
        while some.len() < max
            && let Some((id, revision)) = index.waiting.pop_first()
        {
            some.push(WaitingEntry { id, revision });
        }
        Ok(some)
    }

    async fn changed(&mut self) {
        loop {
            {
                let mut index = lock(&self.index);
                if index.current && std::mem::take(&mut index.news) {
                    return;
                }
            }
            tokio::select! {
                event = self.tail.next() => self.take(event),
                Some(notice) = self.notices.next() => self.notice(&notice),
            }
        }
    }
}
