//! What is pushed: entries that become due, and changes of keys.
//!
//! Invariant: neither loses a change to a dropped call. The watch tells of expired keys itself, because nobody else acts
//! when a key runs out.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use naq_models::{JobId, JobStatus, Timestamp};
use naq_services::storage::{
    Bucket, DueEntry, DueFeed, KvChange, KvWatch, Result, ResultFeed, ResultNews, WaitingEntry,
};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use super::{
    consumer::until,
    state::{KvEvent, Shared},
};

pub(crate) struct MemoryDueFeed {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    /// Up to which revision the entries that wait for other jobs were reported.
    reported: u64,
}

impl MemoryDueFeed {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let changes = shared.changes.subscribe();
        Self { shared, changes, reported: 0 }
    }
}

#[async_trait]
impl DueFeed for MemoryDueFeed {
    async fn due(&mut self, now: Timestamp, max: usize) -> Result<Vec<DueEntry>> {
        let state = self.shared.look();
        let due = state.timed().into_iter().take_while(|(run_at, _)| *run_at <= now).take(max);
        Ok(due
            .map(|(run_at, entry)| DueEntry { id: entry.address.id.clone(), run_at, revision: entry.revision })
            .collect())
    }

    async fn next_due(&mut self) -> Result<Option<Timestamp>> {
        Ok(self.shared.look().timed().first().map(|(run_at, _)| *run_at))
    }

    async fn waiting(&mut self, max: usize) -> Result<Vec<WaitingEntry>> {
        let state = self.shared.look();
        let waiting = state.scheduled.values().map(|(entry, _)| entry);
        let new = waiting.filter(|entry| entry.status == JobStatus::Waiting && entry.revision > self.reported);
        let mut new: Vec<_> =
            new.map(|entry| WaitingEntry { id: entry.address.id.clone(), revision: entry.revision }).collect();
        new.sort_by_key(|entry| entry.revision);
        new.truncate(max);
        self.reported = new.last().map_or(self.reported, |entry| entry.revision);
        Ok(new)
    }

    async fn changed(&mut self) {
        // The sender lives in `shared`, which is held here.
        self.changes.changed().await.ok();
    }
}

pub(crate) struct MemoryResultFeed {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    /// With the newest revision that was reported of each.
    followed: BTreeMap<JobId, u64>,
}

impl MemoryResultFeed {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let changes = shared.changes.subscribe();
        Self { shared, changes, followed: BTreeMap::new() }
    }

    fn newest(&self, id: &JobId) -> u64 {
        self.shared.look().result(id).map_or(0, |kept| kept.result.revision)
    }
}

#[async_trait]
impl ResultFeed for MemoryResultFeed {
    async fn follow(&mut self, ids: &[JobId]) -> Result<()> {
        for id in ids {
            let newest = self.newest(id);
            self.followed.entry(id.clone()).or_insert(newest);
        }
        Ok(())
    }

    fn forget(&mut self, id: &JobId) {
        self.followed.remove(id);
    }

    async fn next(&mut self) -> ResultNews {
        loop {
            let mut news = self.followed.iter().map(|(id, seen)| (id.clone(), *seen, self.newest(id)));
            let news = news.find(|(_, seen, newest)| newest > seen);
            if let Some((id, _, newest)) = news {
                self.followed.insert(id.clone(), newest);
                return ResultNews::Of(id);
            }
            // The sender lives in `shared`, which is held here.
            self.changes.changed().await.ok();
        }
    }
}

pub(crate) struct MemoryWatch {
    shared: Arc<Shared>,
    bucket: Bucket,
    prefix: String,
    events: broadcast::Receiver<KvEvent>,
    ready: VecDeque<KvChange>,
    /// The keys that were reported, and when they end.
    alive: BTreeMap<String, Option<Instant>>,
}

impl MemoryWatch {
    pub(crate) fn new(shared: Arc<Shared>, bucket: Bucket, prefix: &str) -> Self {
        let events = shared.kv_events.subscribe();
        let (ready, alive) = (VecDeque::new(), BTreeMap::new());
        let mut watch = Self { shared, bucket, prefix: prefix.to_owned(), events, ready, alive };
        watch.restart();
        watch
    }

    /// Reads everything; also after it fell behind.
    fn restart(&mut self) {
        let state = self.shared.look();
        // Events are sent under the lock: what comes from here on is newer than what is read now.
        self.events = self.shared.kv_events.subscribe();
        self.ready = VecDeque::from([KvChange::Restart]);
        self.alive.clear();
        for slot in state.kv(self.bucket, &self.prefix) {
            self.alive.insert(slot.entry.key.clone(), slot.expires());
            self.ready.push_back(KvChange::Put(slot.entry.clone()));
        }
        self.ready.push_back(KvChange::Current);
    }

    fn take(&mut self, (bucket, change, expires): KvEvent) {
        let key = match &change {
            KvChange::Put(entry) => entry.key.clone(),
            KvChange::Gone(key) => key.clone(),
            KvChange::Restart | KvChange::Current => return,
        };
        if bucket != self.bucket || !key.starts_with(&self.prefix) {
            return;
        }
        match &change {
            KvChange::Gone(_) => self.alive.remove(&key),
            _ => self.alive.insert(key, expires),
        };
        self.ready.push_back(change);
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let gone = self.alive.extract_if(.., |_, expires| expires.is_some_and(|expires| expires <= now));
        self.ready.extend(gone.map(|(key, _)| KvChange::Gone(key)));
    }
}

#[async_trait]
impl KvWatch for MemoryWatch {
    async fn next(&mut self) -> KvChange {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return change;
            }
            let expiry = self.alive.values().flatten().min().copied();
            tokio::select! {
                // First, so that a renewal that has arrived counts before the old end of the key.
                biased;
                event = self.events.recv() => match event {
                    Ok(event) => self.take(event),
                    Err(_) => self.restart(),
                },
                () = until(expiry) => self.expire(),
            }
        }
    }
}
