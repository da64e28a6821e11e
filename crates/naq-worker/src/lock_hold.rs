//! [`LockHold`]: the scheduler's lock in the hands of somebody who fires nothing.
//!
//! Invariant: while it holds, no scheduler of the store promotes or fires. Its authority is a leader's (see `leader`): it is
//! lost when it was not renewed in time, and then its holder has to stop.

use naq_services::{StorageError, storage::SharedStorage};
use tokio_util::sync::CancellationToken;

use crate::{
    Health, Leader, SchedulerOptions,
    leader::{Candidate, Term},
};

/// The lock of a store's scheduler, held so that nobody leads.
#[derive(Debug)]
pub struct LockHold {
    candidate: Candidate,
    term: Term,
    options: SchedulerOptions,
}

impl LockHold {
    /// Takes the lock; `None` if a leader that is alive has it. One that was killed is waited for, as long as its lock
    /// lasts. `holder` is unique among all that want the lock.
    ///
    /// # Errors
    /// If the store fails.
    ///
    /// # Cancel safety
    /// A lock that was taken by a dropped call runs out by itself.
    pub async fn take(
        storage: SharedStorage,
        holder: impl Into<String>,
        options: SchedulerOptions,
    ) -> Result<Option<Self>, StorageError> {
        let (holder, ttl) = (holder.into(), options.lock_ttl);
        let candidate = Candidate { storage: storage.clone(), holder: holder.clone(), ttl, health: Health::new(ttl) };
        let never = CancellationToken::new();
        let term = tokio::select! {
            biased;
            term = candidate.acquire(&never) => term?,
            alive = other_is_alive(&storage, &holder) => { alive?; None }
        };
        Ok(term.map(|term| Self { candidate, term, options }))
    }

    /// Renews the lock until it is lost; with the error, if the store failed for good.
    ///
    /// # Cancel safety
    /// Cancel safe: the next call goes on.
    pub async fn lost(&mut self) -> Option<StorageError> {
        loop {
            tokio::time::sleep(self.options.lock_renew_interval).await;
            match self.candidate.renew(&mut self.term).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(error),
            }
        }
    }

    /// Gives the lock up.
    pub async fn release(self) {
        self.candidate.resign(self.term).await;
    }
}

/// Returns when somebody else has renewed the lock.
async fn other_is_alive(storage: &SharedStorage, holder: &str) -> Result<(), StorageError> {
    loop {
        let Some(leader) = Leader::look(&**storage).await?.filter(|leader| leader.holder != holder) else {
            // Nobody else has it now: it can be had.
            return std::future::pending().await;
        };
        if leader.is_alive(&**storage).await?
            && Leader::look(&**storage).await?.is_some_and(|now| now.holder == leader.holder)
        {
            return Ok(());
        }
    }
}
