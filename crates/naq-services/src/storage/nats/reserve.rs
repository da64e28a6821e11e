//! Ids that callers chose: reserved by a key, because the same id could be enqueued to another queue or priority.
//!
//! Invariant: a chosen id is in the store once, at the address that its key names. The key is made before the job is
//! published and removed when the job has ended, before its acknowledgement; one whose job cannot be found for half a
//! minute is stale (its maker died) and may be taken over by compare-and-set.
//!
//! Unique keys are taken above the seam (`jobs/unique.rs`); only their release at the end of a job is here.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use naq_models::{Address, JobId, Priority, QueueName, Timestamp, UniqueHolder};
use serde::{Deserialize, Serialize};

use super::{Shared, names::Names};
use crate::{
    kv_stores,
    storage::{Bucket, Entry, Result, StorageError, StorageErrorKind},
    streams::Revisions,
};

/// How long a key without a job is respected.
const STALE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);
/// Reservations under way at once.
const CONCURRENT: usize = 64;

/// Whether a job may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// The id is queued, scheduled, running, or its result is kept.
    Taken,
    /// Nothing holds it. With `review`, another producer may be storing it at the same address right now.
    Free { review: bool },
}

/// What the key of an id holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Holder {
    id: JobId,
    queue: QueueName,
    priority: Priority,
    since: Timestamp,
}

impl Holder {
    fn address(&self) -> Address {
        Address { id: self.id.clone(), queue: self.queue.clone(), priority: self.priority, stored_at: self.since }
    }

    fn is_at(&self, address: &Address) -> bool {
        self.queue == address.queue && self.priority == address.priority
    }
}

impl Shared {
    /// Reserves the ids of entries, in order. Generated ids are free by themselves.
    pub(super) async fn reserve_all(&self, entries: &[Entry], which: &[usize]) -> Vec<Result<Reserved>> {
        if which.iter().all(|index| entries[*index].address.id.is_generated()) {
            return which.iter().map(|_| Ok(Reserved::Free { review: false })).collect();
        }
        let reserve = |index: usize| self.reserve(&entries[index].address, entries[index].generation);
        stream::iter(which.to_vec()).map(reserve).buffered(CONCURRENT).collect().await
    }

    /// Reserves one id for the life that starts from `generation`.
    pub(super) async fn reserve(&self, address: &Address, generation: u64) -> Result<Reserved> {
        let id = &address.id;
        if id.is_generated() {
            return Ok(Reserved::Free { review: false });
        }
        if self.get_result(id).await?.is_some_and(|result| result.revision > generation) {
            return Ok(Reserved::Taken);
        }
        let (bucket, key) = (self.names.bucket(Bucket::Unique), Names::id_key(id));
        let attempts = 2 * STALE.as_millis() / PAUSE.as_millis();
        for _ in 0..attempts {
            let since = self.now("enqueue").await?;
            let mine = Holder { id: id.clone(), queue: address.queue.clone(), priority: address.priority, since };
            let value: bytes::Bytes = serde_json::to_vec(&mine).map_err(unreadable)?.into();
            match self.kv.create(&bucket, &key, value.clone(), None).await {
                Ok(_) => return Ok(Reserved::Free { review: false }),
                Err(error) if error.kind() == StorageErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
            let Some(taken) = self.kv.get(&bucket, &key).await? else { continue };
            let holder: Holder = serde_json::from_slice(&taken.value).map_err(unreadable)?;
            let mut found = self.traces(&[holder.address()]).await;
            let traces = found.pop().unwrap_or_else(|| Ok(super::enqueue::Traces::default()))?;
            let ended = traces.result.is_some_and(|result| result.sequence > generation);
            if ended || traces.queued.is_some() || traces.scheduled.is_some() {
                return Ok(Reserved::Taken);
            }
            if holder.is_at(address) {
                // Whoever holds it stores it, if at all, at the address where two cannot be.
                return Ok(Reserved::Free { review: true });
            }
            if since.since(holder.since) >= STALE {
                match self.kv.update(&bucket, &key, value, taken.revision, None).await {
                    Ok(_) => return Ok(Reserved::Free { review: true }),
                    Err(error) if error.kind() == StorageErrorKind::Conflict => continue,
                    Err(error) => return Err(error),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(StorageError::new(
            StorageErrorKind::Conflict,
            "enqueue",
            format!("job id {id} is being enqueued by others over and over"),
        ))
    }

    /// Makes the key of a chosen id name the address where its new life begins; `false` if the id lives elsewhere.
    pub(super) async fn hold_id(&self, address: &Address) -> Result<bool> {
        if address.id.is_generated() {
            return Ok(true);
        }
        let (bucket, key) = (self.names.bucket(Bucket::Unique), Names::id_key(&address.id));
        let since = self.now("requeue").await?;
        let holder = Holder { id: address.id.clone(), queue: address.queue.clone(), priority: address.priority, since };
        let value: bytes::Bytes = serde_json::to_vec(&holder).map_err(unreadable)?.into();
        match self.kv.create(&bucket, &key, value.clone(), None).await {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == StorageErrorKind::Conflict => {}
            Err(error) => return Err(error),
        }
        let Some(taken) = self.kv.get(&bucket, &key).await? else { return Ok(true) };
        let holder: Holder = serde_json::from_slice(&taken.value).map_err(unreadable)?;
        if holder.is_at(address) {
            return Ok(true);
        }
        let traces = self.traces(&[holder.address()]).await.pop().transpose()?.unwrap_or_default();
        if traces.queued.is_some() || traces.scheduled.is_some() {
            return Ok(false);
        }
        self.kv.update(&bucket, &key, value, taken.revision, None).await.map(|_| true)
    }

    /// Removes the keys of ids whose jobs have ended. A key that names another address belongs to another life.
    pub(super) async fn release_ids(&self, ended: &[&Address]) -> Vec<Result<()>> {
        let keys = ended.iter().map(|address| (!address.id.is_generated()).then(|| Names::id_key(&address.id)));
        let is_mine = |index: usize, value: &[u8]| {
            let holder: Option<Holder> = serde_json::from_slice(value).ok();
            holder.is_none_or(|holder| holder.is_at(ended[index]))
        };
        self.release("release id", keys.collect(), is_mine).await
    }

    /// Removes the unique keys of jobs that have ended. One that names another job stays.
    pub(super) async fn release_keys(&self, ended: &[(&str, &JobId)]) -> Vec<Result<()>> {
        let keys = ended.iter().map(|(key, _)| Some((*key).to_owned())).collect();
        let is_mine = |index: usize, value: &[u8]| UniqueHolder::names(value, ended[index].1);
        self.release("release unique key", keys, is_mine).await
    }

    /// Removes keys, each if `is_mine` says so of its value; by sequence, so that one that has changed since stays.
    async fn release(
        &self,
        operation: &'static str,
        keys: Vec<Option<String>>,
        is_mine: impl Fn(usize, &[u8]) -> bool,
    ) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = keys.iter().map(|_| Ok(())).collect();
        let wanted: Vec<(usize, &String)> =
            keys.iter().enumerate().filter_map(|(index, key)| Some((index, key.as_ref()?))).collect();
        if wanted.is_empty() {
            return outcomes;
        }
        let bucket = self.names.bucket(Bucket::Unique);
        let stream = kv_stores::stream_name(&bucket);
        let what = wanted.iter().map(|(_, key)| (stream.clone(), kv_stores::subject(&bucket, key))).collect();
        let mut mine = Vec::new();
        for ((index, _), found) in wanted.into_iter().zip(self.streams.last_messages(what).await) {
            match found {
                Ok(Some(message)) if is_mine(index, &message.payload) => mine.push((index, Revisions::of(&message))),
                Ok(_) => {}
                Err(failure) => outcomes[index] = Err(self.streams.error(operation, failure)),
            }
        }
        let (which, what): (Vec<_>, Vec<_>) = mine.into_iter().unzip();
        for (index, deleted) in which.into_iter().zip(self.streams.remove_all(&stream, &what).await) {
            outcomes[index] = deleted.map(drop).map_err(|failure| self.streams.error(operation, failure));
        }
        outcomes
    }
}

fn unreadable(error: serde_json::Error) -> StorageError {
    StorageError::new(StorageErrorKind::Corrupt, "enqueue", format!("the key of a job id cannot be read: {error}"))
        .with_source(error)
}
