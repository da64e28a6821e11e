//! A job context without a store: handlers are called as the executor calls them, and every use of the store is a
//! test failure.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::{Job, JobError, JobId, QueueName, RawJson, Timestamp, Verdict};
use naq_services::{CancellationToken, JobContext, State, States, storage::*};
use naq_worker::ErasedHandler;

/// The largest result that the contexts made here allow, in bytes.
pub(crate) const MAX_BODY: usize = 256 * 1024;

pub(crate) fn job(kind: &str, args: serde_json::Value) -> Job {
    Job::new(JobId::new("job-1").unwrap(), kind, RawJson::from_value(&args).unwrap(), Timestamp::EPOCH)
}

pub(crate) fn context(job: Job) -> JobContext {
    with_states(job, States::default())
}

pub(crate) fn with_states(job: Job, states: States) -> JobContext {
    let token = CancellationToken::new();
    JobContext::new(Arc::new(job), "worker-1".into(), token, Arc::new(NoStore), Arc::new(states))
}

pub(crate) async fn run(handler: &Arc<dyn ErasedHandler>, args: serde_json::Value) -> Verdict {
    handler.call(context(job(handler.kind(), args))).await
}

#[track_caller]
pub(crate) fn value(verdict: Verdict) -> serde_json::Value {
    match verdict {
        Verdict::Complete(json) => json.to().unwrap(),
        other => panic!("not completed: {other:?}"),
    }
}

/// The error of a verdict that leaves what follows to the policy.
#[track_caller]
pub(crate) fn error(verdict: Verdict) -> JobError {
    match verdict {
        Verdict::Error(error) => error,
        other => panic!("not an error: {other:?}"),
    }
}

/// The error of a verdict that ends the job.
#[track_caller]
pub(crate) fn failure(verdict: Verdict) -> JobError {
    match verdict {
        Verdict::Fail(error) => error,
        other => panic!("not failed for good: {other:?}"),
    }
}

/// Used where a test proves that a shared value arrives.
#[derive(Debug)]
pub(crate) struct Greeting(pub(crate) &'static str);

pub(crate) fn greet(greeting: &State<Greeting>, name: &str) -> String {
    format!("{} {name}", greeting.0.0)
}

#[derive(Debug)]
pub(crate) struct NoStore;

macro_rules! touched {
    () => {
        panic!("a handler test touched the store")
    };
}

#[async_trait]
impl Storage for NoStore {
    fn info(&self) -> StorageInfo {
        StorageInfo { backend: "none", location: String::new(), version: String::new(), max_body: MAX_BODY }
    }
    async fn now(&self) -> Result<Timestamp> {
        touched!()
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
    async fn settle(&self, _: Vec<Settlement>) -> Vec<Result<Settled>> {
        touched!()
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
