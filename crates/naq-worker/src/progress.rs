//! What running jobs say of how far they are, brought to the store and to the events.
//!
//! Invariant: a handler that reports in its innermost loop costs one write each [`EVERY`], over the heartbeat's connection; the
//! newest report wins. One task writes and removes, so that nothing is written of a job after its progress was removed.
//! Progress is for people: failing to store it is logged and harms no job.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use naq_models::{JobId, Progress};
use naq_services::{
    ProgressSlot,
    storage::{Bucket, Heartbeat},
};
use tokio::{sync::Notify, time::sleep};

use crate::{lease::Run, shared::Shared};

/// Between two writes of one job's progress: fast enough for a person who watches.
const EVERY: Duration = Duration::from_millis(500);
/// What a worker that died leaves behind is gone after this.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Writes under way at once.
const AT_ONCE: usize = 32;

/// What has to be written, and what has to be removed.
#[derive(Debug, Default)]
pub(crate) struct ProgressBoard {
    news: Arc<Notify>,
    /// Jobs that have ended for good and may have progress in the store.
    ended: Mutex<HashSet<JobId>>,
}

impl ProgressBoard {
    /// Where a job that is about to start leaves its progress.
    pub(crate) fn begin(&self) -> RunProgress {
        RunProgress { slot: ProgressSlot::new(Arc::clone(&self.news)), kept: Mutex::default() }
    }

    /// The job has ended for good. One that said nothing in its last attempt costs no look: what an earlier one said runs out.
    pub(crate) fn ended(&self, run: &Run) {
        if run.progress.slot.newest().is_some() {
            self.lock().insert(run.job.id.clone());
            self.news.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<JobId>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one running job says of how far it is.
#[derive(Debug, Default)]
pub(crate) struct RunProgress {
    slot: ProgressSlot,
    /// What was brought to the store last.
    kept: Mutex<Option<Progress>>,
}

impl RunProgress {
    /// Where its handler leaves it.
    pub(crate) fn slot(&self) -> &ProgressSlot {
        &self.slot
    }

    pub(crate) fn kept(&self) -> Option<Progress> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Brings progress to the store; never ends.
pub(crate) async fn keep(shared: &Shared, heartbeat: &dyn Heartbeat) {
    loop {
        shared.progress.news.notified().await;
        flush(shared, heartbeat).await;
        sleep(EVERY).await;
    }
}

/// Brings what was said so far to the store.
pub(crate) async fn flush(shared: &Shared, heartbeat: &dyn Heartbeat) {
    let running = shared.leases.running();
    let news = running.iter().filter_map(|held| of_run(shared, held.run()?));
    let news: Vec<(JobId, Progress)> = news.collect();
    stream::iter(news)
        .for_each_concurrent(AT_ONCE, async |(id, progress)| {
            let value = Bytes::from(serde_json::to_vec(&progress).expect("progress holds only strings and numbers"));
            if let Err(error) = heartbeat.put(Bucket::Progress, id.as_str(), value, KEPT).await {
                tracing::warn!(job = %id, %error, "progress could not be stored");
            }
        })
        .await;
    // Taken after the writes: none of these runs any more, so that none is written again.
    let ended = std::mem::take(&mut *shared.progress.lock());
    stream::iter(ended)
        .for_each_concurrent(AT_ONCE, async |id| {
            if let Err(error) = shared.storage.kv_delete(Bucket::Progress, id.as_str(), None).await {
                tracing::warn!(job = %id, %error, "progress of a job that has ended could not be removed; it runs out");
            }
        })
        .await;
}

/// What a job has said since the last look, which is told to the events.
fn of_run(shared: &Shared, run: &Run) -> Option<(JobId, Progress)> {
    let (fraction, message) = run.progress.slot.take_new()?;
    let progress = Progress::new(fraction, message, run.job.attempt, shared.clock.now());
    *run.progress.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
    shared.tell_progress(run, &progress);
    Some((run.job.id.clone(), progress))
}
