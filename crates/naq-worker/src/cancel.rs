//! What operators say to every worker: cancel intents and paused queues, followed in the store's control bucket.
//!
//! Invariant: loaded before the first claim and followed from then on, so that no job whose intent was written before its
//! claim is started, and a running one is told. An intent is the canceller's to remove; nothing is written here.

use std::{
    collections::HashSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use naq_models::{JobId, QueueName};
use naq_services::{
    Storage, StorageError,
    storage::{Bucket, KvChange, KvWatch},
};
use tokio::sync::Notify;

use crate::lease::{Leases, StopReason};

const CANCEL: &str = "cancel.";
const PAUSE: &str = "pause.";

/// The intents and pauses that are known here.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    state: Mutex<State>,
    /// How many intents there are: the common answer, none, needs no lock.
    intents: AtomicUsize,
    /// Notified when a queue was paused or resumed.
    pub(crate) pauses_changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    cancelled: HashSet<JobId>,
    paused: HashSet<QueueName>,
}

impl Controls {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the job is to be cancelled.
    pub(crate) fn is_cancelled(&self, id: &JobId) -> bool {
        self.intents.load(Ordering::Acquire) > 0 && self.state().cancelled.contains(id)
    }

    /// Whether the queue is paused.
    pub(crate) fn is_paused(&self, queue: &QueueName) -> bool {
        self.state().paused.contains(queue)
    }

    fn set_cancelled(&self, cancelled: impl FnOnce(&mut HashSet<JobId>)) {
        let mut state = self.state();
        cancelled(&mut state.cancelled);
        self.intents.store(state.cancelled.len(), Ordering::Release);
    }

    fn set_paused(&self, paused: impl FnOnce(&mut HashSet<QueueName>)) {
        paused(&mut self.state().paused);
        self.pauses_changed.notify_one();
    }
}

/// The open watches behind [`Controls`].
pub(crate) struct ControlWatch {
    cancels: Followed<JobId>,
    pauses: Followed<QueueName>,
}

impl ControlWatch {
    /// Opens the watches and loads what is there.
    pub(crate) async fn open(
        storage: &dyn Storage,
        controls: &Controls,
        leases: &Leases,
    ) -> Result<Self, StorageError> {
        let mut watch =
            Self { cancels: Followed::open(storage, CANCEL).await?, pauses: Followed::open(storage, PAUSE).await? };
        while !watch.cancels.loaded {
            let change = watch.cancels.watch.next().await;
            watch.cancelled(change, controls, leases);
        }
        while !watch.pauses.loaded {
            let change = watch.pauses.watch.next().await;
            watch.paused(change, controls);
        }
        Ok(watch)
    }

    /// Follows changes; never ends.
    pub(crate) async fn follow(mut self, controls: &Controls, leases: &Leases) {
        loop {
            tokio::select! {
                change = self.cancels.watch.next() => self.cancelled(change, controls, leases),
                change = self.pauses.watch.next() => self.paused(change, controls),
            }
        }
    }

    fn cancelled(&mut self, change: KvChange, controls: &Controls, leases: &Leases) {
        match self.cancels.read(change) {
            Read::All(ids) => {
                for id in &ids {
                    tell_running(leases, id);
                }
                controls.set_cancelled(|cancelled| *cancelled = ids);
            }
            Read::Added(id) => {
                // Known before it is told: a job that starts in between finds the intent.
                controls.set_cancelled(|cancelled| {
                    cancelled.insert(id.clone());
                });
                tell_running(leases, &id);
            }
            Read::Removed(id) => {
                let mut known = false;
                controls.set_cancelled(|cancelled| known = cancelled.remove(&id));
                // The whole cancel may have passed between two looks of the watch.
                if !known {
                    tell_running(leases, &id);
                }
            }
            Read::Nothing => {}
        }
    }

    fn paused(&mut self, change: KvChange, controls: &Controls) {
        match self.pauses.read(change) {
            Read::All(queues) => controls.set_paused(|paused| *paused = queues),
            Read::Added(queue) => controls.set_paused(|paused| {
                paused.insert(queue);
            }),
            Read::Removed(queue) => controls.set_paused(|paused| {
                paused.remove(&queue);
            }),
            Read::Nothing => {}
        }
    }
}

fn tell_running(leases: &Leases, id: &JobId) {
    if let Some(held) = leases.find(id) {
        held.stop(StopReason::Cancelled);
    }
}

/// A watch over keys `<prefix><name>`, read as a set of names.
struct Followed<T> {
    watch: Box<dyn KvWatch>,
    prefix: &'static str,
    /// Names since the last restart, until they are all there.
    gathering: Option<HashSet<T>>,
    loaded: bool,
}

enum Read<T> {
    All(HashSet<T>),
    Added(T),
    Removed(T),
    Nothing,
}

impl<T: std::str::FromStr + Eq + std::hash::Hash> Followed<T> {
    async fn open(storage: &dyn Storage, prefix: &'static str) -> Result<Self, StorageError> {
        let watch = storage.kv_watch(Bucket::Control, prefix).await?;
        Ok(Self { watch, prefix, gathering: None, loaded: false })
    }

    fn read(&mut self, change: KvChange) -> Read<T> {
        match change {
            KvChange::Restart => {
                self.gathering = Some(HashSet::new());
                Read::Nothing
            }
            KvChange::Current => {
                self.loaded = true;
                self.gathering.take().map_or(Read::Nothing, Read::All)
            }
            KvChange::Put(entry) => match (self.name(&entry.key), &mut self.gathering) {
                (Some(name), Some(gathering)) => {
                    gathering.insert(name);
                    Read::Nothing
                }
                (Some(name), None) => Read::Added(name),
                (None, _) => Read::Nothing,
            },
            KvChange::Gone(key) => match (self.name(&key), &mut self.gathering) {
                (Some(name), Some(gathering)) => {
                    gathering.remove(&name);
                    Read::Nothing
                }
                (Some(name), None) => Read::Removed(name),
                (None, _) => Read::Nothing,
            },
        }
    }

    fn name(&self, key: &str) -> Option<T> {
        let name = key.strip_prefix(self.prefix).and_then(|name| name.parse().ok());
        if name.is_none() {
            tracing::warn!(key, "a control key that names no job or queue is ignored");
        }
        name
    }
}
