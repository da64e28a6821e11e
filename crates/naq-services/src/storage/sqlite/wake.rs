//! [`Wake`]: who waits for which kind of change, within this process.
//!
//! Invariant: a change is announced after its commit, and a waiter subscribes before it looks, so none is missed. An
//! announcement says only "look again"; what there is to see, the store tells.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use naq_models::JobId;
use tokio::sync::{mpsc, watch};

use crate::storage::ResultNews;

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
    /// The log of events has grown.
    pub(super) events: Topic,
    results: Mutex<Waiters>,
}

/// Who waits for results.
#[derive(Debug, Default)]
struct Waiters {
    by_id: HashMap<JobId, watch::Sender<()>>,
    followers: HashMap<u64, Follower>,
    last_follower: u64,
}

#[derive(Debug)]
struct Follower {
    ids: HashSet<JobId>,
    /// At most one line per result of a followed job.
    news: mpsc::UnboundedSender<ResultNews>,
}

impl Follower {
    fn tell(&self, news: ResultNews) {
        // The receiver goes after the follower was removed.
        self.news.send(news).ok();
    }
}

/// What one transaction changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) jobs: bool,
    pub(super) freed: bool,
    pub(super) due: bool,
    pub(super) keys: bool,
    pub(super) events: bool,
    pub(super) results: Vec<JobId>,
    /// There are results that were not named, because nobody waited for one when the transaction began.
    pub(super) unnamed_results: bool,
}

impl Changes {
    /// Whether there is a kind of change that anybody can wait for.
    pub(super) fn are_awaited(&self) -> bool {
        let Self { jobs, freed, due, keys, events, results, unnamed_results } = self;
        *jobs || *freed || *due || *keys || *events || *unnamed_results || !results.is_empty()
    }
}

impl Wake {
    pub(super) fn new() -> Self {
        Self {
            jobs: Topic::new(),
            freed: Topic::new(),
            due: Topic::new(),
            keys: Topic::new(),
            events: Topic::new(),
            results: Mutex::default(),
        }
    }

    fn results(&self) -> MutexGuard<'_, Waiters> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces what a transaction changed.
    pub(super) fn announce(&self, changes: &Changes) {
        for (changed, topic) in [
            (changes.jobs, &self.jobs),
            (changes.freed, &self.freed),
            (changes.due, &self.due),
            (changes.keys, &self.keys),
            (changes.events, &self.events),
        ] {
            if changed {
                topic.announce();
            }
        }
        if !changes.results.is_empty() {
            let waiters = self.results();
            for sender in changes.results.iter().filter_map(|id| waiters.by_id.get(id)) {
                sender.send_replace(());
            }
            for follower in waiters.followers.values() {
                for id in changes.results.iter().filter(|id| follower.ids.contains(*id)) {
                    follower.tell(ResultNews::Of(id.clone()));
                }
            }
        }
        // Whoever began to wait after the transaction did, and looked before its commit, has not seen them.
        if changes.unnamed_results && self.awaits_results() {
            self.announce_all_results();
        }
    }

    /// Whether a result is waited for at all.
    pub(super) fn awaits_results(&self) -> bool {
        let waiters = self.results();
        !waiters.by_id.is_empty() || waiters.followers.values().any(|follower| !follower.ids.is_empty())
    }

    /// Wakes everyone who waits for a result.
    pub(super) fn announce_all_results(&self) {
        let waiters = self.results();
        for sender in waiters.by_id.values() {
            sender.send_replace(());
        }
        for follower in waiters.followers.values() {
            follower.tell(ResultNews::Lost);
        }
    }

    /// A follower of results, of none at first.
    pub(super) fn follow_results(self: &Arc<Self>) -> Following {
        let (sender, news) = mpsc::unbounded_channel();
        let mut waiters = self.results();
        waiters.last_follower += 1;
        let number = waiters.last_follower;
        waiters.followers.insert(number, Follower { ids: HashSet::new(), news: sender });
        Following { number, news, wake: Arc::clone(self) }
    }

    /// Waits for a result from now on.
    pub(super) fn await_result(self: &Arc<Self>, id: &JobId) -> ResultWait {
        let mut results = self.results();
        let changes = results.by_id.entry(id.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
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
        if results.by_id.get(&self.id).is_some_and(|sender| sender.receiver_count() == 0) {
            results.by_id.remove(&self.id);
        }
    }
}

/// See [`Wake::follow_results`].
#[derive(Debug)]
pub(super) struct Following {
    number: u64,
    news: mpsc::UnboundedReceiver<ResultNews>,
    wake: Arc<Wake>,
}

impl Following {
    fn change(&self, what: impl FnOnce(&mut HashSet<JobId>)) {
        if let Some(follower) = self.wake.results().followers.get_mut(&self.number) {
            what(&mut follower.ids);
        }
    }

    pub(super) fn add(&self, ids: &[JobId]) {
        self.change(|followed| followed.extend(ids.iter().cloned()));
    }

    pub(super) fn remove(&self, id: &JobId) {
        self.change(|followed| {
            followed.remove(id);
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wake.results().followers.get(&self.number).is_none_or(|follower| follower.ids.is_empty())
    }

    pub(super) async fn next(&mut self) -> ResultNews {
        self.news.recv().await.expect("the sender stays until this is dropped")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.wake.results().followers.remove(&self.number);
    }
}
