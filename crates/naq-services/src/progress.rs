//! How far a running job says it is: [`ProgressSlot`], where its handler leaves it for its worker, and [`ProgressStream`],
//! as its producer follows it.
//!
//! Invariant: a report never waits and never fails; only the newest counts, so that a handler may report in its innermost
//! loop. What is kept is in [`Bucket::Progress`] under the job's id, written by the worker and removed by it when the job
//! has ended for good.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{
    Stream, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use naq_models::{JobId, Progress};
use tokio::sync::Notify;

use crate::{
    StorageError,
    handle::JobHandle,
    jobs::{JobServiceError, Result},
    storage::{Bucket, KvChange, KvEntry, KvWatch, Storage},
};

/// Where a handler leaves how far it is. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct ProgressSlot {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    newest: Mutex<Option<(f64, String)>>,
    is_new: AtomicBool,
    news: Arc<Notify>,
}

impl ProgressSlot {
    /// A slot whose reports wake `news`.
    #[must_use]
    pub fn new(news: Arc<Notify>) -> Self {
        Self { inner: Arc::new(Inner { news, ..Inner::default() }) }
    }

    pub(crate) fn report(&self, fraction: f64, message: String) {
        *self.inner.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some((fraction, message));
        if !self.inner.is_new.swap(true, Ordering::AcqRel) {
            self.inner.news.notify_one();
        }
    }

    /// The newest report, if there was one since the last call.
    #[must_use]
    pub fn take_new(&self) -> Option<(f64, String)> {
        if self.inner.is_new.swap(false, Ordering::AcqRel) { self.newest() } else { None }
    }

    /// The newest report.
    #[must_use]
    pub fn newest(&self) -> Option<(f64, String)> {
        self.inner.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is kept of a job's progress.
pub(crate) async fn read(storage: &dyn Storage, id: &JobId) -> Result<Option<Progress>, StorageError> {
    Ok(storage.kv_get(Bucket::Progress, id.as_str()).await?.and_then(|entry| of_entry(&entry)))
}

fn of_entry(entry: &KvEntry) -> Option<Progress> {
    serde_json::from_slice(&entry.value)
        .inspect_err(|error| tracing::warn!(job = entry.key, %error, "progress that cannot be read is passed over"))
        .ok()
}

/// How far a job says it is, as it says it: a [`Stream`]. Ends when the job has ended. Who is slow, or had no store for a
/// while, misses what was said in between.
pub struct ProgressStream {
    reports: BoxStream<'static, Progress>,
}

impl ProgressStream {
    pub(crate) async fn open<R: 'static>(handle: JobHandle<R>) -> Result<Self> {
        let id = handle.id().clone();
        let watch = handle.jobs().storage().kv_watch(Bucket::Progress, id.as_str()).await.map_err(|source| {
            JobServiceError::storage(format!("the progress of job {id} cannot be followed"), source)
        })?;
        let ended = Box::pin(async move {
            if let Err(error) = handle.outcome(JobHandle::<R>::DEFAULT_TIMEOUT).await {
                // Its end cannot be seen; that its progress is removed can.
                tracing::debug!(job = %handle.id(), %error, "the end of the job is not followed");
                tokio::time::sleep(JobHandle::<R>::DEFAULT_TIMEOUT).await;
            }
        });
        let following = Following { id, watch, ended, heard: false };
        let reports = stream::unfold(following, |mut following| async {
            let progress = following.next().await?;
            Some((progress, following))
        });
        Ok(Self { reports: reports.boxed() })
    }
}

struct Following {
    id: JobId,
    watch: Box<dyn KvWatch>,
    ended: BoxFuture<'static, ()>,
    heard: bool,
}

impl Following {
    async fn next(&mut self) -> Option<Progress> {
        loop {
            let change = tokio::select! {
                // What was said last comes before the end.
                biased;
                change = self.watch.next() => change,
                () = &mut self.ended => return None,
            };
            match change {
                KvChange::Put(entry) if entry.key == self.id.as_str() => {
                    self.heard = true;
                    if let Some(progress) = of_entry(&entry) {
                        return Some(progress);
                    }
                }
                KvChange::Gone(key) if key == self.id.as_str() && self.heard => return None,
                _ => {}
            }
        }
    }
}

impl Stream for ProgressStream {
    type Item = Progress;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Progress>> {
        self.reports.poll_next_unpin(cx)
    }
}

impl fmt::Debug for ProgressStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressStream").finish_non_exhaustive()
    }
}
