//! [`Storage`] over the state: looks, delegates, waits.
//!
//! Invariant: after `close` every call fails with `Closed`, and other connections go on.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::{JobId, JobStatus, QueueName, Timestamp};
use naq_services::storage::{
    Bucket, Claim, Consumer, ConsumerOptions, DueFeed, Ended, Ending, Enqueued, EnqueuedAll, Entry, EventBatch,
    EventBounds, EventFeed, EventPage, EventRange, Finding, Heartbeat, KvEntry, KvWatch, Lease, ListFilter, ListPage,
    Promoted, Promotion, QueueStats, Remains, Result, ResultFeed, Review, ScheduledEntry, Settled, Settlement,
    Severity, Sighting, Storage, StorageError, StorageErrorKind, StorageInfo, StoredResult,
};

use super::{
    consumer::{MemoryConsumer, MemoryHeartbeat},
    event_log::MemoryEventFeed,
    feeds::{MemoryDueFeed, MemoryResultFeed, MemoryWatch},
    state::{Kept, MAX_BODY, Queued, Shared, State},
};

/// The host's clock is this store's clock.
pub(crate) fn host_now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is where the store's clock comes from")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since)
}

fn closed(operation: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Closed, operation, "the connection is closed")
}

/// One connection.
pub(crate) struct MemoryStorage {
    shared: Arc<Shared>,
    closed: AtomicBool,
}

impl MemoryStorage {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, closed: AtomicBool::new(false) }
    }

    fn open(&self, operation: &'static str) -> Result<&Arc<Shared>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed(operation));
        }
        Ok(&self.shared)
    }

    /// One outcome of `each` per item, all of them together.
    fn batch<T, U>(
        &self,
        operation: &'static str,
        items: Vec<T>,
        mut each: impl FnMut(&mut State, T) -> Result<U>,
    ) -> Vec<Result<U>> {
        if self.closed.load(Ordering::Acquire) {
            return items.iter().map(|_| Err(closed(operation))).collect();
        }
        self.shared.change(|state| items.into_iter().map(|item| each(state, item)).collect())
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").field("closed", &self.closed).finish_non_exhaustive()
    }
}

fn queued(job: &Queued) -> Sighting {
    let running = job.claim.as_ref().map(|held| held.by.clone());
    Sighting::Queued { address: job.entry.address.clone(), body: job.entry.body.clone(), running }
}

/// Everything that matches a filter, each with a key that fixes its place in the list.
fn matching(state: &State, filter: &ListFilter) -> Vec<(String, Sighting)> {
    let wants = |statuses: &[JobStatus]| {
        filter.statuses.is_empty() || filter.statuses.iter().any(|status| statuses.contains(status))
    };
    let of_queue = |queue: &QueueName| filter.queue.as_ref().is_none_or(|wanted| wanted == queue);
    let mut found = Vec::new();
    if wants(&[JobStatus::Pending, JobStatus::Running]) {
        let jobs = state.jobs.iter().filter(|(_, job)| of_queue(&job.entry.address.queue));
        found.extend(jobs.map(|(id, job)| (format!("a.{id}"), queued(job))));
    }
    let waiting = state.scheduled.iter().filter(|(_, (e, _))| wants(&[e.status]) && of_queue(&e.address.queue));
    found.extend(waiting.map(|(id, (entry, _))| (format!("b.{id}"), Sighting::Scheduled(entry.clone()))));
    if wants(&[JobStatus::Failed]) {
        let dead = state.dead.iter().filter(|(_, letter)| of_queue(&letter.address.queue));
        found.extend(dead.map(|(id, letter)| (format!("c.{id}"), Sighting::Dead(letter.clone()))));
    }
    if wants(&[JobStatus::Completed, JobStatus::Cancelled]) {
        let results = state.results.keys().filter_map(|id| state.result(id)).filter(|kept| of_queue(&kept.queue));
        found.extend(results.map(|kept| (format!("d.{}", kept.result.id), Sighting::Ended(kept.result.clone()))));
    }
    found
}

fn stats_of(state: &State, queue: &QueueName) -> QueueStats {
    let mut stats = QueueStats::empty(queue.clone());
    for job in state.jobs.values().filter(|job| job.entry.address.queue == *queue) {
        if job.claim.is_some() {
            stats.running += 1;
            continue;
        }
        stats.pending[usize::from(job.entry.address.priority.get())] += 1;
        let stored_at = job.entry.address.stored_at;
        stats.oldest_pending = Some(stats.oldest_pending.map_or(stored_at, |oldest| oldest.min(stored_at)));
    }
    for (entry, _) in state.scheduled.values().filter(|(entry, _)| entry.address.queue == *queue) {
        match entry.status {
            JobStatus::Retry => stats.retry += 1,
            JobStatus::Waiting => stats.waiting += 1,
            _ => stats.scheduled += 1,
        }
    }
    stats.failed = state.dead.values().filter(|letter| letter.address.queue == *queue).count() as u64;
    stats
}

#[async_trait]
impl Storage for MemoryStorage {
    fn info(&self) -> StorageInfo {
        StorageInfo {
            backend: "example",
            location: "this process".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            max_body: MAX_BODY,
        }
    }

    async fn now(&self) -> Result<Timestamp> {
        self.open("now").map(|_| host_now())
    }

    async fn diagnose(&self) -> Result<Vec<Finding>> {
        self.open("diagnose")?;
        Ok(vec![Finding {
            severity: Severity::Warning,
            subject: "durability".into(),
            message: "jobs live in memory and end with the process".into(),
            advice: "use another backend for jobs that matter".into(),
        }])
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    async fn enqueue(&self, entries: Vec<Entry>) -> Vec<Result<Enqueued>> {
        self.batch("enqueue", entries, State::enqueue)
    }

    async fn enqueue_all(&self, entries: Vec<Entry>) -> Result<EnqueuedAll> {
        self.open("enqueue_all")?.change(|state| state.enqueue_all(entries))
    }

    async fn get_job(&self, id: &JobId) -> Result<Vec<Sighting>> {
        let state = self.open("get_job")?.look();
        let mut found: Vec<_> = state.jobs.get(id).map(queued).into_iter().collect();
        found.extend(state.scheduled.get(id).map(|(entry, _)| Sighting::Scheduled(entry.clone())));
        found.extend(state.dead.get(id).cloned().map(Sighting::Dead));
        found.extend(state.result(id).map(|kept| Sighting::Ended(kept.result.clone())));
        if found.is_empty() {
            return Err(StorageError::new(StorageErrorKind::NotFound, "get_job", format!("no job {id}")));
        }
        Ok(found)
    }

    async fn list(&self, filter: &ListFilter) -> Result<ListPage> {
        let state = self.open("list")?.look();
        let mut found = matching(&state, filter);
        found.retain(|(key, _)| filter.cursor.as_ref().is_none_or(|cursor| key > cursor));
        let more = found.len() > filter.limit;
        found.truncate(filter.limit);
        let next = found.last().filter(|_| more).map(|(key, _)| key.clone());
        Ok(ListPage { items: found.into_iter().map(|(_, sighting)| sighting).collect(), next })
    }

    async fn queue_stats(&self, queue: Option<&QueueName>) -> Result<Vec<QueueStats>> {
        let state = self.open("queue_stats")?.look();
        Ok(match queue {
            Some(queue) => vec![stats_of(&state, queue)],
            None => state.queues.iter().map(|queue| stats_of(&state, queue)).collect(),
        })
    }

    async fn open_consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>> {
        Ok(Box::new(MemoryConsumer::new(Arc::clone(self.open("open_consumer")?), options)))
    }

    async fn open_heartbeat(&self) -> Result<Box<dyn Heartbeat>> {
        Ok(Box::new(MemoryHeartbeat(Arc::clone(self.open("open_heartbeat")?))))
    }

    async fn review(&self, claim: &Claim) -> Result<Review> {
        let state = self.open("review")?.look();
        let id = &claim.lease.id;
        Ok(Review {
            result: state.result(id).map(|kept| kept.result.clone()),
            scheduled_run: state.scheduled.get(id).map(|(entry, _)| entry.run),
            suspect: state.jobs.get(id).is_some_and(|job| job.suspect),
        })
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled>> {
        self.batch("settle", settlements, |state, settlement| state.settle(&self.shared.kv_events, settlement))
    }

    async fn hand_back(&self, leases: Vec<Lease>) -> Result<()> {
        self.open("hand_back")?.change(|state| leases.iter().for_each(|lease| state.hand_back(lease)));
        Ok(())
    }

    async fn end(&self, ending: Ending) -> Result<Ended> {
        let shared = self.open("end")?;
        let intent = format!("cancel.{}", ending.address.id);
        let place = (Bucket::Control, intent.as_str());
        let told = shared.change(|state| state.kv_put(&shared.kv_events, place, Bytes::new(), None, None));
        let ended = shared.change(|state| state.end(&shared.kv_events, ending));
        // An intent that was there already belongs to another call, which removes it.
        if let Ok(revision) = told {
            shared.change(|state| state.kv_delete(&shared.kv_events, place, Some(revision)));
        }
        ended
    }

    async fn requeue(&self, entry: Entry) -> Result<Enqueued> {
        self.open("requeue")?.change(|state| state.requeue(entry))
    }

    async fn reschedule(&self, entry: Entry, revision: u64) -> Result<()> {
        self.open("reschedule")?.change(|state| state.reschedule(entry, revision))
    }

    async fn remove_dead_letter(&self, id: &JobId) -> Result<bool> {
        Ok(self.open("remove_dead_letter")?.change(|state| state.dead.remove(id).is_some()))
    }

    async fn open_due_feed(&self) -> Result<Box<dyn DueFeed>> {
        Ok(Box::new(MemoryDueFeed::new(Arc::clone(self.open("open_due_feed")?))))
    }

    async fn get_scheduled(&self, ids: &[JobId]) -> Result<Vec<Option<ScheduledEntry>>> {
        let state = self.open("get_scheduled")?.look();
        Ok(ids.iter().map(|id| state.scheduled.get(id).map(|(entry, _)| entry.clone())).collect())
    }

    async fn promote(&self, promotions: Vec<Promotion>) -> Vec<Result<Promoted>> {
        self.batch("promote", promotions, State::promote)
    }

    async fn get_result(&self, id: &JobId) -> Result<Option<StoredResult>> {
        Ok(self.open("get_result")?.look().result(id).map(|kept| kept.result.clone()))
    }

    async fn wait_result(&self, id: &JobId, newer_than: u64, timeout: Duration) -> Result<Option<StoredResult>> {
        let shared = self.open("wait_result")?;
        let mut changes = shared.changes.subscribe();
        let is_newer = |kept: &&Kept| kept.result.revision > newer_than;
        let found = async {
            loop {
                if let Some(kept) = shared.look().result(id).filter(is_newer) {
                    return kept.result.clone();
                }
                // The sender lives in `shared`.
                changes.changed().await.ok();
            }
        };
        Ok(tokio::time::timeout(timeout, found).await.ok())
    }

    async fn store_remains(&self, remains: Vec<Remains>) -> Vec<Result<Enqueued>> {
        self.batch("store remains", remains, State::store_remains)
    }

    async fn remove_result(&self, id: &JobId, revision: u64) -> Result<bool> {
        Ok(self.open("remove result")?.change(|state| state.remove_result(id, revision)))
    }

    async fn open_result_feed(&self) -> Result<Box<dyn ResultFeed>> {
        Ok(Box::new(MemoryResultFeed::new(Arc::clone(self.open("open_result_feed")?))))
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        Ok(self.open("sweep")?.change(|state| state.sweep(limit)))
    }

    async fn finish_orphans(&self, _limit: usize) -> Result<usize> {
        // Every end happens at once.
        Ok(0)
    }

    async fn append_events(&self, batches: Vec<EventBatch>) -> Result<()> {
        self.open("append_events")?.change(|state| state.events.append(batches));
        Ok(())
    }

    async fn read_events(&self, range: &EventRange) -> Result<EventPage> {
        Ok(self.open("read_events")?.look().events.read(range))
    }

    async fn event_bounds(&self) -> Result<EventBounds> {
        Ok(self.open("event_bounds")?.look().events.bounds())
    }

    async fn tail_events(&self, after: u64) -> Result<Box<dyn EventFeed>> {
        Ok(Box::new(MemoryEventFeed::new(Arc::clone(self.open("tail_events")?), after)))
    }

    async fn kv_get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>> {
        Ok(self.open("kv_get")?.look().kv_get(bucket, key).map(|slot| slot.entry.clone()))
    }

    async fn kv_create(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64> {
        let shared = self.open("kv_create")?;
        shared.change(|state| state.kv_put(&shared.kv_events, (bucket, key), value, None, ttl))
    }

    async fn kv_update(
        &self,
        bucket: Bucket,
        key: &str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<u64> {
        let shared = self.open("kv_update")?;
        shared.change(|state| state.kv_put(&shared.kv_events, (bucket, key), value, Some(revision), ttl))
    }

    async fn kv_delete(&self, bucket: Bucket, key: &str, revision: Option<u64>) -> Result<bool> {
        let shared = self.open("kv_delete")?;
        Ok(shared.change(|state| state.kv_delete(&shared.kv_events, (bucket, key), revision)))
    }

    async fn kv_list(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>> {
        Ok(self.open("kv_list")?.look().kv(bucket, prefix).map(|slot| slot.entry.clone()).collect())
    }

    async fn kv_watch(&self, bucket: Bucket, prefix: &str) -> Result<Box<dyn KvWatch>> {
        Ok(Box::new(MemoryWatch::new(Arc::clone(self.open("kv_watch")?), bucket, prefix)))
    }
}
