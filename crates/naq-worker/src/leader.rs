//! Which of many schedulers fires: a leader lease, a key in the store that its holder renews.
//!
//! Invariant: authority ends by the clock of each side alone. The holder stops acting when its last confirmed renewal,
//! counted from before it was sent, is older than the lease less a margin. A standby takes over when it has itself seen
//! no new revision for the lease, or at once when the key is gone (a clean stop). Wall clocks are never compared. Two that
//! act at once, should it happen, are harmless: what a leader does is guarded by compare-and-set on each entry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use naq_services::{
    StorageError, StorageErrorKind,
    storage::{Bucket, KvChange, KvWatch, SharedStorage, Storage},
};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{Health, clock::BootTime};

/// The key of the lock.
pub(crate) const KEY: &str = "scheduler";
/// A failed try at the lock is followed by another after so long.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Lock {
    holder: String,
    term: u64,
    /// Seconds.
    ttl: f64,
}

/// Who holds the lock of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The worker's id, or the name of a process that only schedules.
    pub holder: String,
    /// Grows by one each time that somebody takes the lock.
    pub term: u64,
    /// Without a renewal for so long, another one takes over.
    pub lock_ttl: Duration,
    revision: u64,
}

impl Leader {
    /// Whoever holds the lock, dead or alive; `None` if nobody does.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn look(storage: &dyn Storage) -> Result<Option<Self>, StorageError> {
        let entry = storage.kv_get(Bucket::Locks, KEY).await?;
        Ok(entry.and_then(|entry| {
            let lock: Lock = serde_json::from_slice(&entry.value).ok()?;
            let lock_ttl = Duration::try_from_secs_f64(lock.ttl).unwrap_or_default();
            Some(Self { holder: lock.holder, term: lock.term, lock_ttl, revision: entry.revision })
        }))
    }

    /// Waits until it renews the lock, or somebody else takes it, or gives it up; `false` if nothing of it happens within
    /// `lock_ttl`: it is dead, and nobody stands by.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn is_alive(&self, storage: &dyn Storage) -> Result<bool, StorageError> {
        let mut watch = storage.kv_watch(Bucket::Locks, KEY).await?;
        let mut standby = Standby::default();
        let changed = async {
            load(&mut *watch, &mut standby).await;
            while standby.seen.as_ref().is_some_and(|seen| seen.revision == self.revision) {
                standby.note(watch.next().await);
            }
        };
        Ok(tokio::time::timeout(self.lock_ttl, changed).await.is_ok())
    }
}

/// A candidate for the lock.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) storage: SharedStorage,
    /// Unique among all candidates at all times.
    pub(crate) holder: String,
    pub(crate) ttl: Duration,
    pub(crate) health: Health,
}

/// What a standby knows of the lock.
#[derive(Default)]
struct Standby {
    seen: Option<Seen>,
    /// The watch began anew and has not reported the lock yet.
    unreported: bool,
}

struct Seen {
    revision: u64,
    lock: Option<Lock>,
    since: BootTime,
}

impl Standby {
    fn note(&mut self, change: KvChange) {
        match change {
            KvChange::Restart => self.unreported = true,
            KvChange::Put(entry) if entry.key == KEY => {
                self.unreported = false;
                // The same revision once more is no sign of life.
                if self.seen.as_ref().is_none_or(|seen| seen.revision != entry.revision) {
                    let lock = serde_json::from_slice(&entry.value).ok();
                    self.seen = Some(Seen { revision: entry.revision, lock, since: BootTime::now() });
                }
            }
            KvChange::Gone(key) if key == KEY => self.seen = None,
            KvChange::Current if self.unreported => {
                self.unreported = false;
                self.seen = None;
            }
            KvChange::Put(_) | KvChange::Gone(_) | KvChange::Current => {}
        }
    }
}

impl Candidate {
    /// Waits until this candidate leads; `None` if it was asked to stop.
    pub(crate) async fn acquire(&self, stop: &CancellationToken) -> Result<Option<Term>, StorageError> {
        let mut watch = self.storage.kv_watch(Bucket::Locks, KEY).await?;
        let mut standby = Standby::default();
        let Some(()) = stop.run_until_cancelled(load(&mut *watch, &mut standby)).await else { return Ok(None) };
        self.health.store_answered();
        self.health.serves();
        loop {
            let patience = self.patience(standby.seen.as_ref());
            if patience.is_zero() {
                match self.take(standby.seen.as_ref()).await {
                    Ok(term) => return Ok(Some(term)),
                    Err(error) if error.kind() == StorageErrorKind::Conflict => {}
                    Err(error) if error.is_transient() => {
                        tracing::warn!(%error, "the scheduler's lock cannot be taken")
                    }
                    Err(error) => return Err(error),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                change = watch.next() => {
                    if change != KvChange::Restart {
                        self.health.store_answered();
                    }
                    standby.note(change);
                }
                () = sleep(if patience.is_zero() { RETRY } else { patience }) => {}
            }
        }
    }

    /// How long to wait before the lock may be taken.
    fn patience(&self, seen: Option<&Seen>) -> Duration {
        let Some(seen) = seen else { return Duration::ZERO };
        let ttl = match &seen.lock {
            // Taken by this very candidate, but the answer was lost.
            Some(lock) if lock.holder == self.holder => return Duration::ZERO,
            Some(lock) => Duration::try_from_secs_f64(lock.ttl).unwrap_or(self.ttl),
            None => self.ttl,
        };
        ttl.saturating_sub(BootTime::now().since(seen.since))
    }

    async fn take(&self, seen: Option<&Seen>) -> Result<Term, StorageError> {
        let number = seen.and_then(|seen| seen.lock.as_ref()).map_or(0, |lock| lock.term).saturating_add(1);
        let mut term = Term { number, revision: 0, authority: Authority::default() };
        let asked = BootTime::now();
        let value = self.value(number);
        term.revision = match seen {
            None => self.storage.kv_create(Bucket::Locks, KEY, value, None).await?,
            Some(seen) => self.storage.kv_update(Bucket::Locks, KEY, value, seen.revision, None).await?,
        };
        term.authority.extend(self.valid_until(asked));
        self.health.store_answered();
        Ok(term)
    }

    /// Renews a term; `false` if somebody else leads now. A transient failure leaves the term as it was.
    pub(crate) async fn renew(&self, term: &mut Term) -> Result<bool, StorageError> {
        let asked = BootTime::now();
        match self.storage.kv_update(Bucket::Locks, KEY, self.value(term.number), term.revision, None).await {
            Ok(revision) => {
                term.revision = revision;
                term.authority.extend(self.valid_until(asked));
                self.health.store_answered();
                Ok(true)
            }
            Err(error) if error.kind() == StorageErrorKind::Conflict => self.adopt(term, asked).await,
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the scheduler's lock could not be renewed");
                Ok(term.is_valid(BootTime::now()))
            }
            Err(error) => Err(error),
        }
    }

    /// A renewal whose answer was lost has moved the revision: if the lock is still this term's, it goes on.
    async fn adopt(&self, term: &mut Term, asked: BootTime) -> Result<bool, StorageError> {
        let Some(entry) = self.storage.kv_get(Bucket::Locks, KEY).await? else { return Ok(false) };
        let lock: Option<Lock> = serde_json::from_slice(&entry.value).ok();
        if lock.is_none_or(|lock| lock.holder != self.holder || lock.term != term.number) {
            return Ok(false);
        }
        let value = self.value(term.number);
        match self.storage.kv_update(Bucket::Locks, KEY, value, entry.revision, None).await {
            Ok(revision) => {
                term.revision = revision;
                term.authority.extend(self.valid_until(asked));
                self.health.store_answered();
                Ok(true)
            }
            Err(error) if error.kind() == StorageErrorKind::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the lock up, so that a standby takes over at once.
    pub(crate) async fn resign(&self, term: Term) {
        if let Err(error) = self.storage.kv_delete(Bucket::Locks, KEY, Some(term.revision)).await {
            tracing::debug!(%error, "the scheduler's lock was not given up; it runs out by itself");
        }
    }

    fn value(&self, term: u64) -> Bytes {
        let lock = Lock { holder: self.holder.clone(), term, ttl: self.ttl.as_secs_f64() };
        serde_json::to_vec(&lock).expect("a lock holds only text and numbers").into()
    }

    fn valid_until(&self, asked: BootTime) -> BootTime {
        asked.plus(self.ttl - self.ttl / 5)
    }
}

/// Reads the state of the lock as it is when the watch begins.
async fn load(watch: &mut dyn KvWatch, standby: &mut Standby) {
    loop {
        let change = watch.next().await;
        let loaded = change == KvChange::Current;
        standby.note(change);
        if loaded {
            return;
        }
    }
}

/// A time of leading. Its holder may act while [`Term::is_valid`].
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) number: u64,
    revision: u64,
    authority: Authority,
}

impl Term {
    pub(crate) fn is_valid(&self, now: BootTime) -> bool {
        self.authority.is_valid(now)
    }

    /// For those who act in the name of the leader beside it.
    pub(crate) fn authority(&self) -> Authority {
        self.authority.clone()
    }
}

/// Until when a term holds; renewals of the term reach every clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Authority(Arc<AtomicU64>);

impl Authority {
    /// For who acts without a term: what a leader does is guarded by compare-and-set on each entry.
    pub(crate) fn without_end() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    pub(crate) fn is_valid(&self, now: BootTime) -> bool {
        now.nanos() < self.0.load(Ordering::Acquire)
    }

    fn extend(&self, until: BootTime) {
        self.0.store(until.nanos(), Ordering::Release);
    }
}
