//! [`Wake`]: who waits for which kind of change, within this process.
//!
//! Invariant: a change is announced after its commit, and a waiter subscribes before it looks, so none is missed. An
//! announcement says only "look again"; what there is to see, the store tells.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use naq_models::JobId;
use tokio::sync::watch;

/// One kind of change.
#[derive(Debug)]
pub(super) struct Topic(watch::Sender<u64>);

impl Topic {
    fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(super) fn announce(&self) {
        self.0.send_modify(|version| *version = version.wrapping_add(1));
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Wake {
    /// A job may have become ready to claim.
    pub(super) jobs: Topic,
    /// A claimed job left its queue: room under a limit of a queue.
    pub(super) freed: Topic,
    /// Something may have become due sooner.
    pub(super) due: Topic,
    /// A key changed.
    pub(super) keys: Topic,
    results: Mutex<HashMap<JobId, watch::Sender<()>>>,
}

/// What one transaction changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) jobs: bool,
    pub(super) freed: bool,
    pub(super) due: bool,
    pub(super) keys: bool,
    pub(super) results: Vec<JobId>,
}

impl Wake {
    pub(super) fn new() -> Self {
        Self {
            jobs: Topic::new(),
            freed: Topic::new(),
            due: Topic::new(),
            keys: Topic::new(),
            results: Mutex::default(),
        }
    }

    fn results(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<()>>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces what a transaction changed.
    pub(super) fn announce(&self, changes: &Changes) {
        for (changed, topic) in [
            (changes.jobs, &self.jobs),
            (changes.freed, &self.freed),
            (changes.due, &self.due),
            (changes.keys, &self.keys),
        ] {
            if changed {
                topic.announce();
            }
        }
        if !changes.results.is_empty() {
            let waiting = self.results();
            for sender in changes.results.iter().filter_map(|id| waiting.get(id)) {
                sender.send_replace(());
            }
        }
    }

    /// Whose results are waited for.
    pub(super) fn awaited(&self) -> HashSet<JobId> {
        self.results().keys().cloned().collect()
    }

    /// Whether a result is waited for at all.
    pub(super) fn awaits_results(&self) -> bool {
        !self.results().is_empty()
    }

    /// Wakes everyone who waits for a result.
    pub(super) fn announce_all_results(&self) {
        for sender in self.results().values() {
            sender.send_replace(());
        }
    }

    /// Waits for a result from now on.
    pub(super) fn await_result(self: &Arc<Self>, id: &JobId) -> ResultWait {
        let mut results = self.results();
        let changes = results.entry(id.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        ResultWait { id: id.clone(), changes: Some(changes), wake: Arc::clone(self) }
    }
}

/// See [`Wake::await_result`].
#[derive(Debug)]
pub(super) struct ResultWait {
    id: JobId,
    changes: Option<watch::Receiver<()>>,
    wake: Arc<Wake>,
}

impl ResultWait {
    /// Returns when the result has changed since the last return, or since the wait began.
    pub(super) async fn changed(&mut self) {
        if let Some(changes) = &mut self.changes {
            // The sender lives as long as this wait is registered, so there is always a next change to wait for.
            changes.changed().await.ok();
        }
    }
}

impl Drop for ResultWait {
    fn drop(&mut self) {
        let mut results = self.wake.results();
        self.changes = None;
        if results.get(&self.id).is_some_and(|sender| sender.receiver_count() == 0) {
            results.remove(&self.id);
        }
    }
}
