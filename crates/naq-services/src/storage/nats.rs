//! The NATS store: jobs on JetStream.
//!
//! Invariant: every move is a fixed order of idempotent writes with the acknowledgement last, so that a crash between any
//! two is finished by whoever sees the job next; the result, written once by compare-and-set, is the truth, and an
//! acknowledgement is only a hint. The layout is `docs/protocol.md`, the orders are in `docs/architecture.md`.
//!
//! Not here: what a job's next state is, and how NATS is spoken (`connection`, `streams`, `kv_stores`).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::{JobId, QueueName, Timestamp};

use super::{
    Bucket, Claim, Consumer, ConsumerOptions, DueFeed, Ended, Ending, Enqueued, EnqueuedAll, Entry, EventBatch,
    EventBounds, EventFeed, EventPage, EventRange, EventRetention, Finding, Heartbeat, KvEntry, KvWatch, Lease,
    ListFilter, ListPage, Promoted, Promotion, QueueStats, Remains, Result, ResultFeed, Review, ScheduledEntry,
    Settled, Settlement, SharedStorage, Sighting, Storage, StorageError, StorageErrorKind, StorageInfo, StoredResult,
};
pub use crate::connection::{Auth, ConnectionOptions, Tls};
use crate::{connection::ConnectionService, kv_stores::KvStoreService, streams::StreamService};

mod ack;
mod dead;
mod diagnose;
mod due;
mod enqueue;
mod enqueue_all;
mod event_log;
mod features;
mod lease;
mod list;
mod lookup;
mod moves;
mod names;
mod promote;
mod pull;
mod remains;
mod repair;
mod reserve;
mod result_feed;
mod results;
mod running;
mod scheduled;
mod settle;
mod stores;
mod sweep;
mod topology;

use features::Features;
use names::Names;
pub(crate) use names::own_event_stream;
pub use stores::{prefixes, remove_store};

/// Room for headers, and for the error of a dead letter beside its body.
const HEADROOM: usize = 64 * 1024;

/// How to reach and use a NATS store.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// The connection.
    pub connection: ConnectionOptions,
    /// Separates one naq from another on the same account: `[A-Za-z0-9_-]{1,32}`.
    pub prefix: String,
    /// Copies of each new stream; 1, 3 or 5. Existing streams keep theirs.
    pub replicas: usize,
    /// Whether new streams are compressed (S2); servers before 2.10 store them as they are.
    pub compress: bool,
    /// The lease of a queue that no worker has served yet; a worker sets its own.
    pub default_lease: Duration,
    /// Where events are kept, and how long.
    pub events: EventStream,
    /// The largest job or result, in bytes, if it is to be less than what the server takes.
    pub max_payload: Option<usize>,
}

/// The stream of events. It is made when the first event is written or somebody follows events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventStream {
    /// Its name; of its own for each prefix.
    pub name: String,
    /// Its limits; whoever writes events sets them.
    pub retention: EventRetention,
    /// Its copies if it is new; 1, 3 or 5.
    pub replicas: usize,
}

impl Default for EventStream {
    fn default() -> Self {
        let name = naq_config::EventsConfig::default().stream.name;
        Self { name, retention: EventRetention::default(), replicas: 1 }
    }
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            prefix: "naq".into(),
            replicas: 1,
            compress: false,
            default_lease: Duration::from_secs(30),
            events: EventStream::default(),
            max_payload: None,
        }
    }
}

impl NatsOptions {
    fn shape(&self) -> topology::Shape {
        topology::Shape { replicas: self.replicas, compress: self.compress }
    }
}

/// Connects, and makes or verifies the streams of the store.
///
/// # Errors
/// [`StorageErrorKind::Unreachable`] if no server answers, [`StorageErrorKind::Denied`] for refused credentials,
/// [`StorageErrorKind::Incompatible`] if the server has no JetStream, is too old, or has streams of these names with
/// settings that break a promise.
pub async fn open(options: NatsOptions) -> Result<SharedStorage> {
    let connection = ConnectionService::connect(options.connection.clone()).await?;
    open_on(connection, options).await
}

/// The same over a connection that is there; closing the store closes it.
///
/// # Errors
/// As [`open`].
pub async fn open_on(connection: ConnectionService, options: NatsOptions) -> Result<SharedStorage> {
    let names = Names::new(&options.prefix)?;
    let streams = StreamService::new(connection.clone());
    let features = Features::detect(&streams).await?;
    let ttl = features.may_have_message_ttl();
    let results_expire = topology::ensure_store(&streams, &names, options.shape(), ttl).await?;
    let control = crate::kv_stores::stream_name(&names.bucket(Bucket::Control));
    let kv = KvStoreService::new(streams.clone(), control, names.gone());
    Ok(Arc::new(NatsStorage {
        shared: Arc::new(Shared {
            connection,
            streams,
            kv,
            names,
            options,
            features,
            results_expire,
            queues: Mutex::default(),
            due: due::Departures::default(),
            confirmations: lease::Confirmations::default(),
            sweeper: sweep::Sweeper::default(),
            events_ready: AtomicBool::new(false),
        }),
    }))
}

/// What every part of the store uses.
#[derive(Debug)]
struct Shared {
    connection: ConnectionService,
    streams: StreamService,
    kv: KvStoreService,
    names: Names,
    options: NatsOptions,
    features: Features,
    /// The server removes results by itself.
    results_expire: bool,
    /// Queues that were made or verified, and what their streams take.
    queues: Mutex<HashMap<QueueName, topology::Batches>>,
    due: due::Departures,
    confirmations: lease::Confirmations,
    sweeper: sweep::Sweeper,
    /// The stream of events was made or verified.
    events_ready: AtomicBool,
}

impl Shared {
    fn known_queues(&self) -> MutexGuard<'_, HashMap<QueueName, topology::Batches>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn now(&self, operation: &'static str) -> Result<Timestamp> {
        self.kv.clock().now().await.map_err(|failure| self.streams.error(operation, failure))
    }

    /// The name of a bucket in which something is to be stored that lives so long.
    fn bucket_for(&self, bucket: Bucket, ttl: Option<Duration>) -> String {
        let name = self.names.bucket(bucket);
        if let Some(ttl) = ttl {
            self.sweeper.expect(&name, ttl);
        }
        name
    }

    fn max_body(&self) -> usize {
        let server = self.connection.max_payload();
        let most = self.options.max_payload.map_or(server, |limit| limit.min(server));
        most.saturating_sub(HEADROOM).max(most / 2)
    }

    fn check_size(&self, operation: &'static str, body: &Bytes) -> Result<()> {
        let limit = self.max_body();
        if body.len() <= limit {
            return Ok(());
        }
        let detail = format!("{} bytes; this store takes at most {limit}", body.len());
        Err(StorageError::new(StorageErrorKind::TooLarge, operation, detail).with_hint(
            "raise max_payload in the server's configuration, or store the data elsewhere and pass its address",
        ))
    }
}

struct NatsStorage {
    shared: Arc<Shared>,
}

impl NatsStorage {
    fn open(&self, operation: &'static str) -> Result<&Arc<Shared>> {
        if self.shared.connection.is_closed() {
            return Err(closed(operation));
        }
        Ok(&self.shared)
    }

    /// The same failure for each of a batch.
    fn open_for<T>(&self, operation: &'static str, items: usize) -> std::result::Result<&Arc<Shared>, Vec<Result<T>>> {
        self.open(operation).map_err(|_| (0..items).map(|_| Err(closed(operation))).collect())
    }
}

fn closed(operation: &'static str) -> StorageError {
    StorageError::new(StorageErrorKind::Closed, operation, "the store is closed")
}

/// The same failure again, for another item of the same batch.
fn repeat(error: &StorageError, operation: &'static str) -> StorageError {
    let again = StorageError::new(error.kind(), operation, error.to_string());
    match error.hint() {
        Some(hint) => again.with_hint(hint),
        None => again,
    }
}

impl fmt::Debug for NatsStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsStorage")
            .field("location", &self.shared.connection.location())
            .field("prefix", &self.shared.options.prefix)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Storage for NatsStorage {
    fn info(&self) -> StorageInfo {
        StorageInfo {
            backend: "nats",
            location: self.shared.connection.location().to_owned(),
            version: self.shared.connection.server_version(),
            max_body: self.shared.max_body(),
        }
    }

    async fn now(&self) -> Result<Timestamp> {
        self.open("now")?.now("now").await
    }

    async fn diagnose(&self) -> Result<Vec<Finding>> {
        self.open("diagnose")?.diagnose().await
    }

    async fn close(&self) {
        self.shared.connection.close().await;
    }

    async fn enqueue(&self, entries: Vec<Entry>) -> Vec<Result<Enqueued>> {
        match self.open_for("enqueue", entries.len()) {
            Ok(shared) => shared.enqueue(entries).await,
            Err(closed) => closed,
        }
    }

    async fn enqueue_all(&self, entries: Vec<Entry>) -> Result<EnqueuedAll> {
        self.open("enqueue all")?.enqueue_all(&entries).await
    }

    async fn get_job(&self, id: &JobId) -> Result<Vec<Sighting>> {
        self.open("get job")?.get_job(id).await
    }

    async fn list(&self, filter: &ListFilter) -> Result<ListPage> {
        self.open("list")?.list(filter).await
    }

    async fn queue_stats(&self, queue: Option<&QueueName>) -> Result<Vec<QueueStats>> {
        self.open("queue stats")?.queue_stats(queue).await
    }

    async fn open_consumer(&self, options: ConsumerOptions) -> Result<Box<dyn Consumer>> {
        Ok(Box::new(pull::Puller::open(Arc::clone(self.open("open consumer")?), options).await?))
    }

    async fn open_heartbeat(&self) -> Result<Box<dyn Heartbeat>> {
        Ok(Box::new(ack::Beat::open(Arc::clone(self.open("open heartbeat")?)).await?))
    }

    async fn review(&self, claim: &Claim) -> Result<Review> {
        self.open("review")?.review(claim).await
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Vec<Result<Settled>> {
        match self.open_for("settle", settlements.len()) {
            Ok(shared) => shared.settle(settlements).await,
            Err(closed) => closed,
        }
    }

    async fn hand_back(&self, leases: Vec<Lease>) -> Result<()> {
        self.open("hand back")?.hand_back(leases).await
    }

    async fn end(&self, ending: Ending) -> Result<Ended> {
        self.open("end")?.end(ending).await
    }

    async fn requeue(&self, entry: Entry) -> Result<Enqueued> {
        self.open("requeue")?.requeue(entry).await
    }

    async fn reschedule(&self, entry: Entry, revision: u64) -> Result<()> {
        self.open("reschedule")?.reschedule(entry, revision).await
    }

    async fn remove_dead_letter(&self, id: &JobId) -> Result<bool> {
        self.open("remove dead letter")?.remove_dead_letter(id).await
    }

    async fn open_due_feed(&self) -> Result<Box<dyn DueFeed>> {
        Ok(Box::new(due::Feed::open(Arc::clone(self.open("open due feed")?)).await?))
    }

    async fn get_scheduled(&self, ids: &[JobId]) -> Result<Vec<Option<ScheduledEntry>>> {
        self.open("get scheduled")?.get_scheduled(ids).await
    }

    async fn promote(&self, promotions: Vec<Promotion>) -> Vec<Result<Promoted>> {
        match self.open_for("promote", promotions.len()) {
            Ok(shared) => shared.promote(promotions).await,
            Err(closed) => closed,
        }
    }

    async fn get_result(&self, id: &JobId) -> Result<Option<StoredResult>> {
        self.open("get result")?.get_result(id).await
    }

    async fn wait_result(&self, id: &JobId, newer_than: u64, timeout: Duration) -> Result<Option<StoredResult>> {
        self.open("wait for result")?.wait_result(id, newer_than, timeout).await
    }

    async fn store_remains(&self, remains: Vec<Remains>) -> Vec<Result<Enqueued>> {
        match self.open_for("store remains", remains.len()) {
            Ok(shared) => shared.store_remains(remains).await,
            Err(closed) => closed,
        }
    }

    async fn remove_result(&self, id: &JobId, revision: u64) -> Result<bool> {
        self.open("remove result")?.remove_result(id, revision).await
    }

    async fn open_result_feed(&self) -> Result<Box<dyn ResultFeed>> {
        Ok(Box::new(result_feed::Feed::open(Arc::clone(self.open("follow results")?))))
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        self.open("sweep")?.sweep(limit).await
    }

    async fn finish_orphans(&self, limit: usize) -> Result<usize> {
        self.open("finish orphans")?.finish_orphans(limit).await
    }

    async fn append_events(&self, batches: Vec<EventBatch>) -> Result<()> {
        self.open("append events")?.append_events(batches).await
    }

    async fn read_events(&self, range: &EventRange) -> Result<EventPage> {
        self.open("read events")?.read_events(range).await
    }

    async fn event_bounds(&self) -> Result<EventBounds> {
        self.open("read events")?.event_bounds().await
    }

    async fn tail_events(&self, after: u64) -> Result<Box<dyn EventFeed>> {
        Ok(Box::new(self.open("follow events")?.tail_events(after).await?))
    }

    async fn kv_get(&self, bucket: Bucket, key: &str) -> Result<Option<KvEntry>> {
        let shared = self.open("read key")?;
        shared.kv.get(&shared.names.bucket(bucket), key).await
    }

    async fn kv_create(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64> {
        let shared = self.open("create key")?;
        let bucket = shared.bucket_for(bucket, ttl);
        shared.kv.create(&bucket, key, value, ttl).await
    }

    async fn kv_update(
        &self,
        bucket: Bucket,
        key: &str,
        value: Bytes,
        revision: u64,
        ttl: Option<Duration>,
    ) -> Result<u64> {
        let shared = self.open("update key")?;
        let bucket = shared.bucket_for(bucket, ttl);
        shared.kv.update(&bucket, key, value, revision, ttl).await
    }

    async fn kv_delete(&self, bucket: Bucket, key: &str, revision: Option<u64>) -> Result<bool> {
        let shared = self.open("delete key")?;
        shared.kv.delete(&shared.names.bucket(bucket), key, revision).await
    }

    async fn kv_list(&self, bucket: Bucket, prefix: &str) -> Result<Vec<KvEntry>> {
        let shared = self.open("list keys")?;
        shared.kv.list(&shared.names.bucket(bucket), prefix).await
    }

    async fn kv_watch(&self, bucket: Bucket, prefix: &str) -> Result<Box<dyn KvWatch>> {
        let shared = self.open("watch keys")?;
        Ok(Box::new(shared.kv.watch(&shared.names.bucket(bucket), prefix).await?))
    }
}
