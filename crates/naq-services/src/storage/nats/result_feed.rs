//! The result feed: one core subscription for each followed job.
//!
//! Invariant: a notice may come before the stream has the result, and a subscription may need a moment to reach the other
//! servers of a cluster; so each job is reported some more times after a notice, and once after it was followed, until it
//! is forgotten. A reconnect puts everything in doubt.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_nats::Subscriber;
use async_trait::async_trait;
use futures_util::{
    StreamExt,
    stream::{AbortHandle, Abortable, SelectAll, abortable},
};
use naq_models::JobId;
use tokio::{sync::watch, time::Instant};

use super::Shared;
use crate::{
    connection::RequestFailure,
    storage::{Result, ResultFeed, ResultNews},
};

/// After a notice, until the job is forgotten.
const REMINDERS: [Duration; 5] = [
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
];

/// See [`ResultFeed`].
pub(super) struct Feed {
    shared: Arc<Shared>,
    notices: SelectAll<Abortable<Subscriber>>,
    followed: HashMap<JobId, AbortHandle>,
    /// When to report a job again, and which of the reminders it is.
    reminders: BinaryHeap<Reverse<(Instant, JobId, usize)>>,
    reconnects: watch::Receiver<u64>,
}

impl Feed {
    pub(super) fn open(shared: Arc<Shared>) -> Self {
        let reconnects = shared.connection.reconnects();
        Self { shared, notices: SelectAll::new(), followed: HashMap::new(), reminders: BinaryHeap::new(), reconnects }
    }

    fn remind(&mut self, id: JobId, which: usize) {
        if let Some(pause) = REMINDERS.get(which) {
            self.reminders.push(Reverse((Instant::now() + *pause, id, which)));
        }
    }
}

#[async_trait]
impl ResultFeed for Feed {
    async fn follow(&mut self, ids: &[JobId]) -> Result<()> {
        for id in ids {
            if self.followed.contains_key(id) {
                continue;
            }
            // It goes out before any later request on this connection.
            let notices = self.shared.connection.subscribe(self.shared.names.result(id)).await;
            let failed = |failure: RequestFailure| self.shared.streams.error("follow results", failure.into());
            let (notices, handle) = abortable(notices.map_err(failed)?);
            self.notices.push(notices);
            self.followed.insert(id.clone(), handle);
            self.remind(id.clone(), REMINDERS.len() - 1);
        }
        Ok(())
    }

    fn forget(&mut self, id: &JobId) {
        if let Some(handle) = self.followed.remove(id) {
            handle.abort();
        }
    }

    async fn next(&mut self) -> ResultNews {
        loop {
            let reminder = self.reminders.peek().map(|Reverse((at, ..))| *at);
            // Every branch is cancel safe, and what is taken out is returned at once.
            tokio::select! {
                Some(notice) = self.notices.next() => {
                    if let Some(id) = self.shared.names.read_result(&notice.subject)
                        && self.followed.contains_key(&id)
                    {
                        self.remind(id.clone(), 0);
                        return ResultNews::Of(id);
                    }
                }
                Ok(()) = self.reconnects.changed() => return ResultNews::Lost,
                () = tokio::time::sleep_until(reminder.unwrap_or_else(Instant::now)), if reminder.is_some() => {
                    if let Some(Reverse((_, id, which))) = self.reminders.pop()
                        && self.followed.contains_key(&id)
                    {
                        self.remind(id.clone(), which + 1);
                        return ResultNews::Of(id);
                    }
                }
                () = self.shared.connection.closed().cancelled() => std::future::pending().await,
            }
        }
    }
}
