//! Jobs whose worker may have died of them: [`Suspects`], a counter per job in the store.
//!
//! Invariant: a suspect is counted before it starts and uncounted when its worker survived it, so a count is the number of
//! worker processes that died while they ran it as a suspect. The first death is never counted: whether the job had
//! started then, nobody knows. A suspect that was counted before runs alone among suspects, so that what died beside a
//! poison job is miscounted at most once. Not here: waiting for the turn (that is the intake's).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use naq_models::JobId;
use naq_services::{
    StorageError, StorageErrorKind,
    storage::{Bucket, KvEntry, SharedStorage},
};
use serde::{Deserialize, Serialize};

/// A count outlives its job at most so long.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Rounds of compare-and-set before giving up.
const ROUNDS: usize = 8;

/// The counters.
#[derive(Debug)]
pub(crate) struct Suspects {
    storage: SharedStorage,
    /// Counts that could not be taken back yet, because the store was away: each would be a death that nobody died.
    owed: Mutex<Vec<JobId>>,
}

/// What a suspect's count means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may run beside other suspects.
    Beside,
    /// It may run when no other suspect runs.
    Alone,
    /// It has taken too many workers with it.
    Poison { crashes: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Count {
    count: u32,
}

impl Suspects {
    pub(crate) fn new(storage: SharedStorage) -> Self {
        Self { storage, owed: Mutex::default() }
    }

    /// How a suspect may run, by what is counted so far, if `max_crashes` make it poison.
    pub(crate) async fn standing(&self, id: &JobId, max_crashes: u32) -> Result<Standing, StorageError> {
        let count = self.storage.kv_get(Bucket::Control, &key(id)).await?.map_or(0, |entry| read(&entry));
        Ok(judge(count, max_crashes))
    }

    /// Counts a suspect that is about to start.
    pub(crate) async fn count(&self, id: &JobId) -> Result<(), StorageError> {
        self.change(id, |count| Some(count.saturating_add(1))).await
    }

    /// Takes a count back: the worker survived the job, but the job is not done. If the store cannot be told now, it is told
    /// by [`forgive_owed`](Self::forgive_owed).
    pub(crate) async fn forgive(&self, id: &JobId) {
        if let Err(error) = self.take_back(id).await {
            tracing::warn!(job = %id, %error, "a suspect could not be uncounted; tries again");
            self.owed().push(id.clone());
        }
    }

    /// Tells the store what it could not be told before.
    pub(crate) async fn forgive_owed(&self) {
        loop {
            let Some(id) = self.owed().last().cloned() else { return };
            if let Err(error) = self.take_back(&id).await {
                tracing::debug!(job = %id, %error, "still not uncounted");
                return;
            }
            let mut owed = self.owed();
            if let Some(place) = owed.iter().rposition(|other| *other == id) {
                owed.swap_remove(place);
            }
        }
    }

    fn owed(&self) -> MutexGuard<'_, Vec<JobId>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_back(&self, id: &JobId) -> Result<(), StorageError> {
        self.change(id, |count| count.checked_sub(1).filter(|left| *left > 0)).await
    }

    /// Drops all counts: the job is settled.
    pub(crate) async fn clear(&self, id: &JobId) -> Result<(), StorageError> {
        self.storage.kv_delete(Bucket::Control, &key(id), None).await.map(|_existed| ())
    }

    async fn change(&self, id: &JobId, next: impl Fn(u32) -> Option<u32>) -> Result<(), StorageError> {
        let key = key(id);
        let mut conflict = None;
        for _ in 0..ROUNDS {
            let entry = self.storage.kv_get(Bucket::Control, &key).await?;
            let next = next(entry.as_ref().map_or(0, read));
            let done = match (&entry, next) {
                (None, None) => return Ok(()),
                (None, Some(count)) => {
                    self.storage.kv_create(Bucket::Control, &key, write(count), Some(KEPT)).await.map(|_| ())
                }
                (Some(entry), Some(count)) => {
                    let write = write(count);
                    self.storage.kv_update(Bucket::Control, &key, write, entry.revision, Some(KEPT)).await.map(|_| ())
                }
                (Some(entry), None) => {
                    self.storage.kv_delete(Bucket::Control, &key, Some(entry.revision)).await.map(|_| ())
                }
            };
            match done {
                Err(error) if error.kind() == StorageErrorKind::Conflict => conflict = Some(error),
                done => return done,
            }
        }
        let detail = format!("{key} changed in each of {ROUNDS} rounds");
        let error = StorageError::new(StorageErrorKind::Conflict, "count a suspect", detail);
        Err(match conflict {
            Some(last) => error.with_source(last),
            None => error,
        })
    }
}

fn judge(count: u32, max_crashes: u32) -> Standing {
    if count >= max_crashes {
        Standing::Poison { crashes: count }
    } else if count == 0 && max_crashes > 1 {
        Standing::Beside
    } else {
        Standing::Alone
    }
}

fn key(id: &JobId) -> String {
    format!("suspect.{id}")
}

fn read(entry: &KvEntry) -> u32 {
    serde_json::from_slice::<Count>(&entry.value).map_or(0, |count| count.count)
}

fn write(count: u32) -> Bytes {
    serde_json::to_vec(&Count { count }).expect("a number is valid JSON").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_miscounted_bystander_never_becomes_poison() {
        assert_eq!(judge(0, 3), Standing::Beside);
        assert_eq!(judge(1, 3), Standing::Alone);
        assert_eq!(judge(2, 3), Standing::Alone);
        assert_eq!(judge(3, 3), Standing::Poison { crashes: 3 });
        // With one crash allowed, a single miscount would be the end: no suspect runs beside another.
        assert_eq!(judge(0, 1), Standing::Alone);
        assert_eq!(judge(1, 1), Standing::Poison { crashes: 1 });
    }
}
