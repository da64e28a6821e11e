//! The heartbeat: a thread of its own that keeps leases alive, owns the deadlines, and carries the worker's presence.
//!
//! Invariant: it beats while handlers burn every other thread and the store is busy: own thread, own runtime, own
//! connection to the store. It extends a lease when a third of it has gone, fires tokens at the deadline and at the fence,
//! and settles as `timeout` what has not ended within the grace. It does not decide what becomes of a job.

use std::{cell::Cell, future::pending, sync::Arc, thread, time::Duration};

use futures_util::{
    FutureExt,
    future::{Fuse, FusedFuture},
};
use naq_services::{
    Measurement, StorageError,
    storage::{Heartbeat, Lease, LeaseState},
};
use tokio::{
    sync::oneshot,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    clock::BootTime,
    executor,
    lease::{Held, Leases, Phase},
    presence::Presence,
    progress,
    shared::Shared,
    worker::WorkerError,
};

/// Between two looks, at most and at least.
const TICK_MAX: Duration = Duration::from_millis(500);
const TICK_MIN: Duration = Duration::from_millis(50);
/// At the end, the last progress of jobs has so long to be removed.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// A slot that is alive ends its own job at the end of the grace; the heartbeat leaves it so much longer.
const MARGIN: Duration = Duration::from_millis(500);

/// The running thread.
pub(crate) struct Beating {
    thread: thread::JoinHandle<()>,
    /// `None` once it has been received.
    ended: Option<oneshot::Receiver<()>>,
    /// Dropped without [`stop`](Self::stop), it ends the thread too: a heart must not beat for a dead worker.
    stop: DropGuard,
}

impl Beating {
    /// Starts the thread and waits until it has its connection.
    pub(crate) async fn start(shared: Arc<Shared>, presence: Presence) -> Result<Self, WorkerError> {
        let (opened, open) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::Builder::new()
            .name("naq-heartbeat".to_owned())
            .spawn(move || {
                beat(&shared, presence, opened, stopped);
                // Nobody listens any more if the worker has ended without waiting.
                let _listener = ending.send(());
            })
            .map_err(WorkerError::Thread)?;
        match open.await {
            Ok(Ok(())) => Ok(Self { thread, ended: Some(ended), stop: stop.drop_guard() }),
            Ok(Err(OpenError::Store(error))) => Err(WorkerError::Store { during: "open the heartbeat", source: error }),
            Ok(Err(OpenError::Runtime(error))) => Err(WorkerError::Thread(error)),
            Err(_) => Err(WorkerError::Heartbeat),
        }
    }

    /// Returns when the thread has ended, which it does by itself only if it panicked.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn ended(&mut self) {
        if let Some(ended) = &mut self.ended {
            // An error means that the sender was dropped by a panic.
            let _clean = ended.await;
            self.ended = None;
        }
    }

    /// Ends the thread and waits for it.
    pub(crate) async fn stop(self) {
        let Self { thread, ended, stop } = self;
        drop(stop);
        if let Some(ended) = ended {
            // An error means that the sender was dropped by a panic, which joining reports.
            let _clean = ended.await;
        }
        if thread.join().is_err() {
            tracing::error!("the heartbeat thread had panicked");
        }
    }
}

enum OpenError {
    Runtime(std::io::Error),
    Store(StorageError),
}

fn beat(shared: &Shared, presence: Presence, opened: oneshot::Sender<Result<(), OpenError>>, stop: CancellationToken) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            // If nobody waits for it, the worker has gone already.
            let _waiting = opened.send(Err(OpenError::Runtime(error)));
            return;
        }
    };
    runtime.block_on(async {
        let heartbeat = match shared.storage.open_heartbeat().await {
            Ok(heartbeat) => heartbeat,
            Err(error) => {
                let _waiting = opened.send(Err(OpenError::Store(error)));
                return;
            }
        };
        if opened.send(Ok(())).is_err() {
            return;
        }
        tokio::select! {
            () = keep(shared, &*heartbeat, stop) => {}
            () = progress::keep(shared, &*heartbeat) => unreachable!("progress is kept as long as leases"),
            () = async { presence.keep(shared, &*heartbeat).await; pending().await } => {}
        }
        // Jobs that ended just now. What is not removed runs out.
        let _in_time = tokio::time::timeout(LAST_LOOK, progress::flush(shared, &*heartbeat)).await;
        shared.measure_slots(0);
    });
}

async fn keep(shared: &Shared, heartbeat: &dyn Heartbeat, stop: CancellationToken) {
    let shortest = shared.queues.iter().map(|queue| queue.lease.unwrap_or(shared.options.lease)).min();
    let tick = (shortest.unwrap_or(shared.options.lease) / 10).clamp(TICK_MIN, TICK_MAX);
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let confirmed = Cell::new(true);
    let mut extending = std::pin::pin!(Fuse::terminated());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = &mut extending => {}
            _ = ticks.tick() => {
                shared.health.beats();
                enforce(shared);
                shared.measure_slots(shared.concurrency());
            }
        }
        let due = shared.leases.to_extend(BootTime::now());
        if !due.is_empty() && extending.is_terminated() {
            extending.set(extend(shared, heartbeat, due, &confirmed).fuse());
        }
    }
}

/// `confirmed` is whether the store confirmed all leases last time.
async fn extend(shared: &Shared, heartbeat: &dyn Heartbeat, held: Vec<Arc<Held>>, confirmed: &Cell<bool>) {
    let asked = BootTime::now();
    let leases: Vec<Lease> = held.iter().map(|held| held.lease().clone()).collect();
    let states = heartbeat.extend(&leases).await;
    let (mut extended, mut lost, mut unknown) = (0, 0, 0);
    for (held, state) in held.iter().zip(states) {
        if state == LeaseState::Lost && matches!(held.phase(), Phase::Buffered | Phase::Running) {
            tracing::warn!(job = %held.id(), "the lease is lost: the job is stopped");
            lost += 1;
        }
        extended += usize::from(state == LeaseState::Held);
        unknown += usize::from(state == LeaseState::Unknown);
        Leases::note(held, state, asked);
    }
    if unknown < leases.len() {
        shared.health.store_answered();
    }
    shared.events.measure(|| Measurement::LeasesExtended { held: extended, lost, unknown });
    if unknown == 0 {
        if !confirmed.replace(true) {
            tracing::info!("the store confirms leases again");
        }
        return;
    }
    // Once for each outage, and not with each try.
    if confirmed.replace(false) {
        tracing::warn!(unknown, asked = leases.len(), "the store did not confirm all leases");
    }
    // A store that does not answer is not asked in a tight loop.
    tokio::time::sleep(TICK_MIN).await;
}

fn enforce(shared: &Shared) {
    for held in shared.leases.enforce(BootTime::now(), shared.options.timeout_grace + MARGIN) {
        let Some(run) = held.run() else { continue };
        if executor::give_up(shared, &held, run) {
            shared.count_stuck();
        }
    }
}
