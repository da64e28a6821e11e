//! A store that holds nothing, for tests of handlers and the benchmark of the executor.
//!
//! Invariant: only what the executor asks of every store is answered, at once: the time, which stands still, and settlements,
//! all of which are done. Any other call is a panic.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::{JobId, QueueName, Timestamp};
use naq_services::storage::*;

/// The largest body that it takes, in bytes.
pub(crate) const MAX_BODY: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct NoStore;

macro_rules! touched {
    () => {
        panic!("the store that holds nothing was asked for something")
    };
}

#[async_trait]
impl Storage for NoStore {
    fn info(&self) -> StorageInfo {
        StorageInfo { backend: "none", location: String::new(), version: String::new(), max_body: MAX_BODY }
    }
    async fn now(&self) -> Result<Timestamp> {
        Ok(Timestamp::EPOCH)
    }
    async fn diagnose(&self) -> Result<Vec<Finding>> {
        touched!()
    }
    async fn close(&self) {
        touched!()
    }
    async fn enqueue(&self, _: Vec<Entry>) -> Vec<Result<Enqueued>> {
        touched!()
    }
    async fn enqueue_all(&self, _: Vec<Entry>) -> Result<EnqueuedAll> {
        touched!()
    }
    async fn get_job(&self, _: &JobId) -> Result<Vec<Sighting>> {
        touched!()
    }
    async fn list(&self, _: &ListFilter) -> Result<ListPage> {
        touched!()
    }
    async fn queue_stats(&self, _: Option<&QueueName>) -> Result<Vec<QueueStats>> {
        touched!()
    }
    async fn open_consumer(&self, _: ConsumerOptions) -> Result<Box<dyn Consumer>> {
        touched!()
    }
    async fn open_heartbeat(&self) -> Result<Box<dyn Heartbeat>> {
        touched!()
    }
    async fn review(&self, _: &Claim) -> Result<Review> {
        touched!()
    }
    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled>> {
        settlements.iter().map(|_| Ok(Settled::Done)).collect()
    }
    async fn hand_back(&self, _: Vec<Lease>) -> Result<()> {
        touched!()
    }
    async fn end(&self, _: Ending) -> Result<Ended> {
        touched!()
    }
    async fn requeue(&self, _: Entry) -> Result<Enqueued> {
        touched!()
    }
    async fn reschedule(&self, _: Entry, _: u64) -> Result<()> {
        touched!()
    }
    async fn remove_dead_letter(&self, _: &JobId) -> Result<bool> {
        touched!()
    }
    async fn open_due_feed(&self) -> Result<Box<dyn DueFeed>> {
        touched!()
    }
    async fn get_scheduled(&self, _: &[JobId]) -> Result<Vec<Option<ScheduledEntry>>> {
        touched!()
    }
    async fn promote(&self, _: Vec<Promotion>) -> Vec<Result<Promoted>> {
        touched!()
    }
    async fn get_result(&self, _: &JobId) -> Result<Option<StoredResult>> {
        touched!()
    }
    async fn wait_result(&self, _: &JobId, _: u64, _: Duration) -> Result<Option<StoredResult>> {
        touched!()
    }
    async fn store_remains(&self, _: Vec<Remains>) -> Vec<Result<Enqueued>> {
        touched!()
    }
    async fn remove_result(&self, _: &JobId, _: u64) -> Result<bool> {
        touched!()
    }
    async fn open_result_feed(&self) -> Result<Box<dyn ResultFeed>> {
        touched!()
    }
    async fn sweep(&self, _: usize) -> Result<usize> {
        touched!()
    }
    async fn finish_orphans(&self, _: usize) -> Result<usize> {
        touched!()
    }
    async fn append_events(&self, _: Vec<EventBatch>) -> Result<()> {
        touched!()
    }
    async fn read_events(&self, _: &EventRange) -> Result<EventPage> {
        touched!()
    }
    async fn event_bounds(&self) -> Result<EventBounds> {
        touched!()
    }
    async fn tail_events(&self, _: u64) -> Result<Box<dyn EventFeed>> {
        touched!()
    }
    async fn kv_get(&self, _: Bucket, _: &str) -> Result<Option<KvEntry>> {
        touched!()
    }
    async fn kv_create(&self, _: Bucket, _: &str, _: Bytes, _: Option<Duration>) -> Result<u64> {
        touched!()
    }
    async fn kv_update(&self, _: Bucket, _: &str, _: Bytes, _: u64, _: Option<Duration>) -> Result<u64> {
        touched!()
    }
    async fn kv_delete(&self, _: Bucket, _: &str, _: Option<u64>) -> Result<bool> {
        touched!()
    }
    async fn kv_list(&self, _: Bucket, _: &str) -> Result<Vec<KvEntry>> {
        touched!()
    }
    async fn kv_watch(&self, _: Bucket, _: &str) -> Result<Box<dyn KvWatch>> {
        touched!()
    }
}
