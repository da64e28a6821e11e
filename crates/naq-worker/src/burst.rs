//! When a burst is over: nothing is pending, due or running in the worker's queues, and what waits for
//! other jobs does so for more than a moment.
//!
//! Invariant: the worker itself is asked first, then the store, and only a store that shows nothing twice over ends the
//! burst. Paused queues do not hold it up; neither does what is due if this worker takes no part in firing it.

use std::time::Duration;

use naq_services::{StorageError, storage::DueFeed};
use tokio::time::sleep;

use crate::shared::Shared;

/// Between two looks into the store.
const LOOK: Duration = Duration::from_millis(50);
/// Due entries looked at, at most.
const DUE_MAX: usize = 512;
/// Looks that must show nothing, one after the other: a job may move between two places while it is looked for.
const EMPTY_LOOKS: usize = 2;
/// The same while jobs wait for others: the last job they waited for may have ended just now, and the leader takes a moment
/// to let them go. Those that wait for longer wait for other queues, and do not hold the burst up.
const EMPTY_LOOKS_WHILE_WAITING: usize = 30;

/// Returns when the burst is over.
pub(crate) async fn over(shared: &Shared) {
    let mut burst = Burst { shared, feed: None, waiting: false };
    let mut empty_looks = 0;
    while empty_looks < if burst.waiting { EMPTY_LOOKS_WHILE_WAITING } else { EMPTY_LOOKS } {
        sleep(LOOK).await;
        let idle = shared.intake().has_nothing() && shared.settler.unsettled() == 0;
        let empty = idle
            && burst.is_empty().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "whether the burst is over cannot be told yet");
                false
            });
        empty_looks = if empty { empty_looks + 1 } else { 0 };
    }
}

struct Burst<'a> {
    shared: &'a Shared,
    feed: Option<Box<dyn DueFeed>>,
    /// At the last look, jobs waited for others.
    waiting: bool,
}

impl Burst<'_> {
    async fn is_empty(&mut self) -> Result<bool, StorageError> {
        let shared = self.shared;
        let (mut waiting_for_a_time, mut waiting) = (false, false);
        for queue in shared.queues.iter().filter(|queue| !shared.is_paused(&queue.name)) {
            for stats in shared.storage.queue_stats(Some(&queue.name)).await? {
                if stats.running > 0 || stats.pending.iter().any(|count| *count > 0) {
                    return Ok(false);
                }
                waiting |= stats.waiting > 0;
                waiting_for_a_time |= stats.scheduled > 0 || stats.retry > 0;
            }
        }
        self.waiting = waiting && shared.options.scheduler.is_some();
        if !waiting_for_a_time || shared.options.scheduler.is_none() {
            return Ok(true);
        }
        self.nothing_due().await
    }

    /// Whether nothing of this worker's queues is due.
    async fn nothing_due(&mut self) -> Result<bool, StorageError> {
        let storage = &self.shared.storage;
        let feed = match &mut self.feed {
            Some(feed) => feed,
            None => self.feed.insert(storage.open_due_feed().await?),
        };
        let now = storage.now().await?;
        let ids: Vec<_> = feed.due(now, DUE_MAX).await?.into_iter().map(|entry| entry.id).collect();
        let mine = |queue| self.shared.queues.iter().any(|spec| spec.name == queue);
        let due = storage.get_scheduled(&ids).await?.into_iter().flatten();
        let due = due.filter(|entry| entry.run_at.is_some_and(|at| at <= now)).map(|entry| entry.address.queue);
        Ok(!due.into_iter().any(mine))
    }
}
