//! A running worker's entry in the list of workers, kept up to date from the heartbeat's thread.
//!
//! Invariant: written at the start, at every heartbeat interval, when the worker begins to stop, and, at most every
//! [`REFRESH`], when other jobs run, or more or fewer may, than it says; removed at a clean end. It is said over the
//! heartbeat's connection, so that a worker that is busy does not look dead. Failing to write it is logged and harms no job.

use std::time::Duration;

use bytes::Bytes;
use naq_models::Timestamp;
use naq_services::{
    storage::{Bucket, Heartbeat},
    workers::{RUNNING_NAMED_MAX, RunningJob, WorkerInfo, WorkerStatus},
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{Shutdown, shared::Shared, worker::Worker};

/// How old the running jobs of an entry may be: fresh enough for a person who looks, one small write in that time.
const REFRESH: Duration = Duration::from_secs(2);

/// What of the entry does not change.
pub(crate) struct Identity {
    name: Option<String>,
    pub(crate) host: String,
    started_at: Timestamp,
}

impl Identity {
    pub(crate) fn of(worker: &Worker, started_at: Timestamp) -> Self {
        Self { name: worker.name.clone(), host: worker.host.clone(), started_at }
    }
}

/// How far the worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    Stopping,
}

/// The entry of a worker that is about to start.
pub(crate) struct Presence {
    pub(crate) identity: Identity,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) stop: Shutdown,
    /// Dropped when the entry is no longer kept.
    pub(crate) kept: oneshot::Sender<()>,
}

impl Presence {
    /// Keeps the entry until `stop` asks to stop now, then removes it.
    pub(crate) async fn keep(self, shared: &Shared, heartbeat: &dyn Heartbeat) {
        let Self { identity, mut stage, stop, kept: _kept } = self;
        shared.tell_started(&identity);
        let mut ticks = interval(REFRESH.min(shared.options.heartbeat_interval));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written: Option<(Instant, WorkerInfo)> = None;
        loop {
            let due = tokio::select! {
                _ = ticks.tick() => false,
                Ok(()) = stage.changed() => true,
                () = stop.requested_now() => break,
            };
            let info = describe(shared, &identity, *stage.borrow_and_update());
            let fresh = written.as_ref().is_some_and(|(at, last)| {
                at.elapsed() < shared.options.heartbeat_interval
                    && last.concurrency == info.concurrency
                    && last.running_count == info.running_count
                    && last.running == info.running
            });
            if fresh && !due {
                continue;
            }
            let entry = Bytes::from(serde_json::to_vec(&info).expect("an entry holds only strings and numbers"));
            match heartbeat.put(Bucket::Workers, &shared.worker_id, entry, shared.options.ttl).await {
                Ok(()) => {
                    shared.health.store_answered();
                    let before = written.as_ref().map(|(_, before)| before.status);
                    shared.tell_alive(before, info.status);
                    written = Some((Instant::now(), info));
                }
                Err(error) => tracing::warn!(%error, "the worker's entry could not be written"),
            }
        }
        if let Err(error) = shared.storage.kv_delete(Bucket::Workers, &shared.worker_id, None).await {
            tracing::warn!(%error, "the worker's entry could not be removed; it runs out by itself");
        }
    }
}

fn describe(shared: &Shared, identity: &Identity, stage: Stage) -> WorkerInfo {
    let (held, now) = (shared.leases.running(), shared.clock.now());
    let running: Vec<RunningJob> = held
        .iter()
        .filter_map(|held| held.run())
        .take(RUNNING_NAMED_MAX)
        .map(|run| RunningJob {
            id: run.job.id.clone(),
            kind: run.job.kind.clone(),
            queue: run.job.queue.clone(),
            attempt: run.job.attempt,
            started_at: run.started_at,
            progress: run.progress.kept(),
        })
        .collect();
    let status = match stage {
        Stage::Stopping => WorkerStatus::Stopping,
        Stage::Serving if held.is_empty() => WorkerStatus::Idle,
        Stage::Serving => WorkerStatus::Busy,
    };
    WorkerInfo {
        id: shared.worker_id.to_string(),
        name: identity.name.clone(),
        host: identity.host.clone(),
        pid: std::process::id(),
        queues: shared.queues.iter().map(ToString::to_string).collect(),
        concurrency: shared.concurrency(),
        running_count: held.len(),
        running,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: identity.started_at,
        seen_at: now,
        status,
    }
}
