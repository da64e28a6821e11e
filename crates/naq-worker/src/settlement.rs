//! Settlements on their way to the store: [`Settler`], the bounded queue, and the task that empties it in batches.
//!
//! Invariant: what enters the queue is settled, or given up because its lease is gone; a batch is what waits at that
//! moment, so it grows with the load and never waits to grow. Failures that pass are tried again while the lease lives;
//! what the store refuses for good becomes a dead letter, and is tried once as such. The queue is bounded in number and
//! in bytes: a slow store slows the slots down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use naq_models::{JobError, JobStatus, error_type};
use naq_services::{
    Measurement, StorageError, StorageErrorKind,
    storage::{Action, Settled, Settlement},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::BootTime,
    ending::Subject,
    lease::{Held, Phase, Traces},
    report::Outcome,
    shared::Shared,
};

/// Finished jobs that wait for the settling task.
const QUEUE: usize = 2048;
/// Settlements per call of the store.
const BATCH: usize = 1000;
/// Calls under way at once; a further one is begun only when so much waits.
const CALLS: usize = 4;
const CALL_AT: usize = 500;
/// Finished jobs of the settling task itself, under way or waiting to be tried again.
const TASK_MAX: usize = 3000;
/// Bytes of results that may wait, counted in KiB; smaller ones are bounded by their number.
const RESULT_KIB: usize = 32 * 1024;
const COUNTED_FROM: usize = 4 * 1024;
/// Pauses between tries.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// A job that is done here, on its way to the store.
pub(crate) struct Finished {
    held: Arc<Held>,
    action: Action,
    traces: Traces,
    outcome: Outcome,
    /// What failed for good is tried once more, as a dead letter.
    refused: bool,
    bytes: Option<OwnedSemaphorePermit>,
    at: BootTime,
}

impl Finished {
    pub(crate) fn new(held: Arc<Held>, action: Action, traces: Traces, outcome: Outcome) -> Self {
        Self { held, action, traces, outcome, refused: false, bytes: None, at: BootTime::now() }
    }
}

/// Where finished jobs go.
pub(crate) struct Settler {
    queue: mpsc::Sender<Finished>,
    /// Told when so much is queued that a further call is worth it.
    enough: Notify,
    unsettled: AtomicUsize,
    bytes: Arc<Semaphore>,
}

/// The other end of a [`Settler`].
pub(crate) type Queue = mpsc::Receiver<Finished>;

impl Settler {
    pub(crate) fn new() -> (Self, Queue) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let bytes = Arc::new(Semaphore::new(RESULT_KIB));
        (Self { queue: sender, enough: Notify::new(), unsettled: AtomicUsize::new(0), bytes }, receiver)
    }

    /// Finished jobs that the store has not taken yet.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Relaxed)
    }

    /// Queues a settlement of a job that stands at `from`; waits while the queue is full. `false` if somebody else has
    /// ended the job meanwhile.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped while it waits, nothing is queued and the job stays where it stands.
    pub(crate) async fn settle(&self, mut finished: Finished, from: Phase) -> bool {
        let size = size(&finished.action);
        if size > COUNTED_FROM {
            let kib = u32::try_from(size.div_ceil(1024).min(RESULT_KIB)).expect("bounded by the semaphore");
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(kib).await;
            finished.bytes = Some(bytes.expect("the semaphore is never closed"));
        }
        let Ok(place) = self.queue.reserve().await else { return false };
        if !finished.held.advance(from, Phase::Settling) {
            return false;
        }
        self.send(place, finished);
        true
    }

    /// Queues the settlement of a running job that is given up, if there is room; the job is then abandoned.
    pub(crate) fn abandon(&self, finished: Finished) -> bool {
        let Ok(place) = self.queue.try_reserve() else { return false };
        if !finished.held.advance(Phase::Running, Phase::Abandoned) {
            return false;
        }
        self.send(place, finished);
        true
    }

    /// Takes at most so many finished jobs, as soon as there are any; while a call is under way as soon as there are enough
    /// for another, so that single ones do not wake the settling task. The number taken, 0 if no more can come.
    ///
    /// # Cancel safety
    /// Cancel safe: dropped while it waits, it has taken none.
    async fn receive(&self, queue: &mut Queue, into: &mut Vec<Finished>, most: usize, is_busy: bool) -> usize {
        if is_busy {
            self.enough.notified().await;
        }
        queue.recv_many(into, most).await
    }

    fn send(&self, place: mpsc::Permit<'_, Finished>, finished: Finished) {
        self.unsettled.fetch_add(1, Ordering::Relaxed);
        place.send(finished);
        if self.queue.max_capacity() - self.queue.capacity() >= CALL_AT {
            self.enough.notify_one();
        }
    }
}

fn size(action: &Action) -> usize {
    match action {
        Action::End { result, .. } => result.as_ref().map_or(0, |result| result.body.len()),
        Action::Again(entry) => entry.body.len(),
    }
}

/// Settles what comes until `done` fires and nothing is left.
pub(crate) async fn run(shared: &Shared, mut queue: Queue, done: CancellationToken) {
    let mut waiting: Vec<Finished> = Vec::with_capacity(BATCH);
    let mut again: Vec<Finished> = Vec::new();
    let mut calls = FuturesUnordered::new();
    let (mut under_way, mut pause, mut again_at) = (0usize, RETRY_MIN, Instant::now());
    loop {
        while !waiting.is_empty() && (calls.is_empty() || (waiting.len() >= CALL_AT && calls.len() < CALLS)) {
            let batch: Vec<Finished> = waiting.drain(..waiting.len().min(BATCH)).collect();
            under_way += batch.len();
            calls.push(settle(shared, batch));
        }
        let idle = waiting.is_empty() && calls.is_empty() && again.is_empty();
        let room = BATCH - waiting.len().min(BATCH);
        let (busy, full) = (!calls.is_empty(), calls.len() >= CALLS);
        let may_receive = room > 0 && !full && again.len() + under_way < TASK_MAX;
        tokio::select! {
            biased;
            Some(call) = calls.next() => {
                let Call { settled, failed } = call;
                under_way -= settled + failed.len();
                shared.settler.unsettled.fetch_sub(settled, Ordering::Relaxed);
                if failed.is_empty() {
                    pause = RETRY_MIN;
                } else {
                    again.extend(failed);
                    again_at = Instant::now() + pause;
                    pause = (pause * 2).min(RETRY_MAX);
                }
                shared.refill.notify_one();
            }
            received = shared.settler.receive(&mut queue, &mut waiting, room, busy), if may_receive => {
                if received == 0 {
                    return;
                }
            }
            () = sleep_until(again_at), if !again.is_empty() && waiting.is_empty() => waiting.append(&mut again),
            () = done.cancelled(), if idle && queue.is_empty() => return,
        }
    }
}

/// What became of a batch.
struct Call {
    settled: usize,
    failed: Vec<Finished>,
}

async fn settle(shared: &Shared, batch: Vec<Finished>) -> Call {
    let now = BootTime::now();
    let total = batch.len();
    // What is fenced may only create a terminal result; of the rest nothing may be written. Seldom is anything fenced,
    // and finished jobs are large to move.
    let (batch, given_up) = if batch.iter().all(|finished| may_write(finished, now)) {
        (batch, Vec::new())
    } else {
        batch.into_iter().partition(|finished| may_write(finished, now))
    };
    let settlements = batch
        .iter()
        .map(|finished| Settlement {
            lease: finished.held.lease().clone(),
            address: finished.held.claim.address.clone(),
            action: finished.action.clone(),
            fenced: finished.held.is_fenced(now),
            clear_scheduled: finished.traces.scheduled,
        })
        .collect::<Vec<_>>();
    let outcomes = if settlements.is_empty() {
        Vec::new()
    } else {
        let asked = BootTime::now();
        let outcomes = shared.storage.settle(settlements).await;
        shared.events.measure(|| Measurement::Settled { jobs: outcomes.len(), took: BootTime::now().since(asked) });
        outcomes
    };
    let (mut failed, mut ended) = (Vec::new(), Vec::with_capacity(batch.len()));
    for (finished, outcome) in batch.into_iter().zip(outcomes) {
        match outcome {
            Ok(settled) => ended.push((finished, Some(settled))),
            Err(error) => match after_failure(shared, finished, &error) {
                After::TryAgain(finished) => failed.push(finished),
                After::GiveUp(finished) => ended.push((finished, None)),
            },
        }
    }
    ended.extend(given_up.into_iter().map(|finished| (finished, Some(Settled::LeaseLost))));
    shared.leases.remove(ended.iter().map(|(finished, _)| &finished.held));
    tell(shared, &ended);
    for (finished, settled) in &ended {
        // Of a job whose lease was lost, the progress is that of whoever has it now.
        let is_ended = matches!(settled, Some(Settled::Done | Settled::AlreadyEnded));
        if let (true, Action::End { .. }, Some(run)) = (is_ended, &finished.action, finished.held.run()) {
            shared.progress.ended(run);
        }
        count(shared, finished, *settled).await;
    }
    Call { settled: total - failed.len(), failed }
}

/// Tells what became of the jobs of a batch.
fn tell(shared: &Shared, ended: &[(Finished, Option<Settled>)]) {
    shared.events.emit_all(|| {
        let done = ended.iter().filter(|(_, settled)| *settled == Some(Settled::Done));
        done.flat_map(|(Finished { held, action, outcome, at, .. }, _)| shared.settled(held, action, *outcome, *at))
            .flatten()
    });
}

fn may_write(finished: &Finished, now: BootTime) -> bool {
    let completed = matches!(
        &finished.action,
        Action::End { result: Some(result), dead_letter: None, .. } if result.status == JobStatus::Completed
    );
    completed || !finished.held.is_fenced(now)
}

enum After {
    TryAgain(Finished),
    GiveUp(Finished),
}

/// Decides what follows a failed settlement.
fn after_failure(shared: &Shared, mut finished: Finished, error: &StorageError) -> After {
    let id = finished.held.id();
    let for_good = matches!(error.kind(), StorageErrorKind::Refused | StorageErrorKind::TooLarge);
    if for_good
        && !finished.refused
        && let Some(run) = finished.held.run()
    {
        tracing::warn!(job = %id, %error, "the store refuses the settlement: the job becomes a dead letter");
        let now = shared.clock.now();
        let subject = Subject {
            address: &finished.held.claim.address,
            body: &finished.held.claim.body,
            worker_id: Some(&shared.worker_id),
            started_at: Some(run.started_at),
            now,
            max_body: shared.max_body,
        };
        let completed = finished.outcome == Outcome::Completed && error.kind() == StorageErrorKind::TooLarge;
        let (action, outcome) = if completed {
            subject.too_large(&run.job, size(&finished.action))
        } else {
            subject.fail(&run.job, JobError::new(error_type::ERROR, format!("the store refused: {error}"), now))
        };
        (finished.action, finished.outcome, finished.refused) = (action, outcome, true);
        return After::TryAgain(finished);
    }
    if for_good || error.kind() == StorageErrorKind::Closed {
        tracing::error!(job = %id, %error, "the job could not be settled; it comes back when its lease runs out");
        return After::GiveUp(finished);
    }
    tracing::warn!(job = %id, %error, "the settlement failed and is tried again while the lease lives");
    After::TryAgain(finished)
}

async fn count(shared: &Shared, finished: &Finished, settled: Option<Settled>) {
    let suspects = &shared.suspects;
    let id = finished.held.id();
    if finished.traces.suspect {
        match settled {
            Some(Settled::Done | Settled::AlreadyEnded) => {
                if let Err(error) = suspects.clear(id).await {
                    tracing::warn!(job = %id, %error, "the counts of a suspect that has ended stay for a while");
                }
            }
            _ => suspects.forgive(id).await,
        }
    }
    match settled {
        Some(Settled::Done) => shared.tally.count(finished.outcome),
        Some(Settled::AlreadyEnded) => shared.tally.count(Outcome::AlreadyEnded),
        Some(Settled::LeaseLost) => {
            shared.tally.lost.fetch_add(1, Ordering::Relaxed);
        }
        None => {
            shared.tally.unsettled.fetch_add(1, Ordering::Relaxed);
        }
    }
}
