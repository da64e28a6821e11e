//! The store with faults: settlements that fail, extensions that are not confirmed, writes that never return. Everything
//! else is the real store.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::{JobId, QueueName, Timestamp};
use naq_services::{
    StorageError, StorageErrorKind,
    storage::{
        Bucket, Claim, Consumer, ConsumerOptions, DueFeed, Ended, Ending, Enqueued, EnqueuedAll, Entry, EventBatch,
        EventBounds, EventFeed, EventPage, EventRange, Finding, Heartbeat, KvEntry, KvWatch, Lease, LeaseState,
        ListFilter, ListPage, Promoted, Promotion, QueueStats, Remains, Result, ResultFeed, Review, ScheduledEntry,
        Settled, Settlement, SharedStorage, Sighting, Storage, StorageInfo, StoredResult,
    },
};

#[derive(Debug)]
pub(crate) struct Faulty {
    inner: SharedStorage,
    /// What the next settlements fail with, one each.
    settlements: Mutex<VecDeque<StorageErrorKind>>,
    mute: Arc<AtomicBool>,
    /// How many more of these writes return; the others stop their caller for ever, before they are made.
    enqueues: AtomicI64,
    schedule_updates: AtomicI64,
    stopped: AtomicBool,
    /// Reads of jobs, entries and results so far, by what was asked for.
    reads: Mutex<Vec<JobId>>,
    /// Calls that store events fail, or never come back.
    events_down: AtomicBool,
    events_hang: AtomicBool,
}

impl Faulty {
    pub(crate) fn on(inner: SharedStorage) -> Arc<Self> {
        Arc::new(Self {
            inner,
            settlements: Mutex::default(),
            mute: Arc::default(),
            enqueues: AtomicI64::new(i64::MAX),
            schedule_updates: AtomicI64::new(i64::MAX),
            stopped: AtomicBool::new(false),
            reads: Mutex::default(),
            events_down: AtomicBool::new(false),
            events_hang: AtomicBool::new(false),
        })
    }

    pub(crate) fn fail_settlements(&self, kinds: impl IntoIterator<Item = StorageErrorKind>) {
        self.settlements.lock().unwrap().extend(kinds);
    }

    /// How many faults are left.
    pub(crate) fn faults_left(&self) -> usize {
        self.settlements.lock().unwrap().len()
    }

    /// No extension of a lease is made or confirmed from now on.
    pub(crate) fn mute_heartbeats(&self) {
        self.mute.store(true, Ordering::SeqCst);
    }

    /// No event is stored from now on, or again.
    pub(crate) fn events_down(&self, down: bool) {
        self.events_down.store(down, Ordering::SeqCst);
    }

    /// Calls that store events do not come back from now on.
    pub(crate) fn events_hang(&self) {
        self.events_hang.store(true, Ordering::SeqCst);
    }

    /// Only so many more calls of `enqueue` return.
    pub(crate) fn stop_after_enqueues(&self, calls: i64) {
        self.enqueues.store(calls, Ordering::SeqCst);
    }

    /// Only so many more updates of schedules return.
    pub(crate) fn stop_after_schedule_updates(&self, calls: i64) {
        self.schedule_updates.store(calls, Ordering::SeqCst);
    }

    /// Whether somebody was stopped.
    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// The jobs that were looked at since the last call, in the order of the looks.
    pub(crate) fn take_reads(&self) -> Vec<JobId> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }

    fn note_reads(&self, ids: &[JobId]) {
        self.reads.lock().unwrap().extend_from_slice(ids);
    }

    async fn pass(&self, left: &AtomicI64) {
        if left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.stopped.store(true, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }

    fn fault(&self) -> Option<StorageError> {
        let kind = self.settlements.lock().unwrap().pop_front()?;
        Some(StorageError::new(kind, "settle", "a fault of the test"))
    }
}

struct FaultyHeartbeat {
    inner: Box<dyn Heartbeat>,
    mute: Arc<AtomicBool>,
}

#[async_trait]
impl Heartbeat for FaultyHeartbeat {
    async fn extend(&self, leases: &[Lease]) -> Vec<LeaseState> {
        if self.mute.load(Ordering::SeqCst) {
            return vec![LeaseState::Unknown; leases.len()];
        }
        self.inner.extend(leases).await
    }

    async fn put(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        self.inner.put(bucket, key, value, ttl).await
    }
}

#[async_trait]
impl Storage for Faulty {
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled>> {
        let mut outcomes = Vec::new();
        for settlement in settlements {
            outcomes.push(match self.fault() {
                Some(error) => Err(error),
                None => self.inner.settle(vec![settlement]).await.pop().unwrap(),
            });
        }
        outcomes
    }

    async fn open_heartbeat(&self) -> Result<Box<dyn Heartbeat>> {
        let inner = self.inner.open_heartbeat().await?;
        Ok(Box::new(FaultyHeartbeat { inner, mute: Arc::clone(&self.mute) }))
    }

    fn info(&self) -> StorageInfo {
        self.inner.info()
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }

    async fn diagnose(&self) -> Result<Vec<Finding>> {
        self.inner.diagnose().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    async fn enqueue(&self, entries: Vec<Entry>) -> Vec<Result<Enqueued>> {
        self.pass(&self.enqueues).await;
        self.inner.enqueue(entries).await
    }

    async fn enqueue_all(&self, entries: Vec<Entry>) -> Result<EnqueuedAll> {
        self.inner.enqueue_all(entries).await
    }

    async fn get_job(&self, id: &JobId) -> Result<Vec<Sighting>> {
        self.note_reads(std::slice::from_ref(id));
        self.inner.get_job(id).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<ListPage> {
        self.inner.list(filter).await
    }

    async fn queue_stats(&self, queue: Option<&QueueName>) -> Result<Vec<QueueStats>> {
        self.inner.queue_stats(queue).await
    }

    async fn open_consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>> {
        self.inner.open_consumer(options).await
    }

    async fn review(&self, claim: &Claim) -> Result<Review> {
        self.inner.review(claim).await
    }

    async fn hand_back(&self, leases: Vec<Lease>) -> Result<()> {
        self.inner.hand_back(leases).await
    }

    async fn end(&self, ending: Ending) -> Result<Ended> {
        self.inner.end(ending).await
    }

    async fn requeue(&self, entry: Entry) -> Result<Enqueued> {
        self.inner.requeue(entry).await
    }

    async fn reschedule(&self, entry: Entry, revision: u64) -> Result<()> {
        self.inner.reschedule(entry, revision).await
    }

    async fn remove_dead_letter(&self, id: &JobId) -> Result<bool> {
        self.inner.remove_dead_letter(id).await
    }

    async fn open_due_feed(&self) -> Result<Box<dyn DueFeed>> {
        self.inner.open_due_feed().await
    }

    async fn get_scheduled(&self, ids: &[JobId]) -> Result<Vec<Option<ScheduledEntry>>> {
        self.note_reads(ids);
        self.inner.get_scheduled(ids).await
    }

    async fn promote(&self, promotions: Vec<Promotion>) -> Vec<Result<Promoted>> {
        self.inner.promote(promotions).await
    }

    async fn get_result(&self, id: &JobId) -> Result<Option<StoredResult>> {
        self.note_reads(std::slice::from_ref(id));
        self.inner.get_result(id).await
    }

    async fn wait_result(&self, id: &JobId, newer_than: u64, timeout: Duration) -> Result<Option<StoredResult>> {
        self.inner.wait_result(id, newer_than, timeout).await
    }

    async fn store_remains(&self, remains: Vec<Remains>) -> Vec<Result<Enqueued>> {
        self.inner.store_remains(remains).await
    }

    async fn remove_result(&self, id: &JobId, revision: u64) -> Result<bool> {
        self.inner.remove_result(id, revision).await
    }

    async fn open_result_feed(&self) -> Result<Box<dyn ResultFeed>> {
        self.inner.open_result_feed().await
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        self.inner.sweep(limit).await
    }

    async fn finish_orphans(&self, limit: usize) -> Result<usize> {
        self.inner.finish_orphans(limit).await
    }

    async fn append_events(&self, batches: Vec<EventBatch>) -> Result<()> {
        if self.events_hang.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.events_down.load(Ordering::SeqCst) {
            return Err(StorageError::new(StorageErrorKind::Full, "append_events", "a fault of the test"));
        }
        self.inner.append_events(batches).await
    }

    async fn read_events(&self, range: &EventRange) -> Result<EventPage> {
        self.inner.read_events(range).await
    }

    async fn event_bounds(&self) -> Result<EventBounds> {
        self.inner.event_bounds().await
    }

    async fn tail_events(&self, after: u64) -> Result<Box<dyn EventFeed>> {
        self.inner.tail_events(after).await
    }

    async fn kv_get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>> {
        self.inner.kv_get(bucket, key).await
    }

    async fn kv_create(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64> {
        self.inner.kv_create(bucket, key, value, ttl).await
    }

    async fn kv_update(
        &self,
        bucket: Bucket,
        key: &str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<u64> {
        if bucket == Bucket::Schedules {
            self.pass(&self.schedule_updates).await;
        }
        self.inner.kv_update(bucket, key, value, revision, ttl).await
    }

    async fn kv_delete(&self, bucket: Bucket, key: &str, revision: Option<u64>) -> Result<bool> {
        self.inner.kv_delete(bucket, key, revision).await
    }

    async fn kv_list(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>> {
        self.inner.kv_list(bucket, prefix).await
    }

    async fn kv_watch(&self, bucket: Bucket, prefix: &str) -> Result<Box<dyn KvWatch>> {
        self.inner.kv_watch(bucket, prefix).await
    }
}
