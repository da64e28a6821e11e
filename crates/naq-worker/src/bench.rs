//! Parts of a worker by themselves: [`ClaimBuffer`] and [`Executor`], for `benches/parts.rs` (feature `bench`).
//!
//! Invariant: the worker's own code, called as a worker calls it, on the threads on which it runs there; nothing is added but
//! the end that a benchmark waits for. Not here: what is around these parts, such as claiming and the heartbeat.

use std::{sync::Arc, time::Duration};

use naq_models::Priority;
use naq_services::{
    StorageError,
    storage::{Claim, Demand, Lane},
};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Worker,
    clock::{BootTime, StoreClock},
    executor,
    intake::Intake,
    lease::{Held, Leases},
    panic_guard, settlement,
    settlement::Settler,
    shared::Shared,
};

/// Between two ends of jobs in a [`ClaimBuffer`], whose time passes by this alone: quick enough that it claims as far ahead as
/// it ever does.
const GAP: Duration = Duration::from_micros(1);
/// Longer than a benchmark, in the time of the buffer.
const LEASE: Duration = Duration::from_secs(3600);

/// Claims as a worker holds them. Clones are the same claims.
#[derive(Debug, Clone)]
pub struct HeldClaims(Vec<Arc<Held>>);

impl From<Vec<Claim>> for HeldClaims {
    fn from(claims: Vec<Claim>) -> Self {
        Self(Leases::default().insert(claims, BootTime::from_nanos(0)))
    }
}

/// What a worker has claimed and not started, without the lock and the clock that are around it there.
#[derive(Debug)]
pub struct ClaimBuffer {
    intake: Intake,
    lanes: Vec<Lane>,
    now: BootTime,
}

impl ClaimBuffer {
    /// Empty, for so many slots and a queue for each weight.
    #[must_use]
    pub fn new(weights: &[Option<u32>], slots: usize) -> Self {
        let now = BootTime::from_nanos(0);
        let queues: Vec<_> = weights.iter().map(|weight| (LEASE, *weight)).collect();
        Self { intake: Intake::new(&queues, slots, now), lanes: lanes(weights.len()), now }
    }

    /// Claims arrive, and the store says that it has no more.
    pub fn push(&mut self, claims: HeldClaims) {
        deliver(&mut self.intake, claims.0, &self.lanes, self.now);
    }

    /// A slot looks for a job; whether it got one.
    pub fn take(&mut self) -> bool {
        let found = self.intake.pick(self.now).is_some();
        self.intake.runs_low();
        found
    }

    /// A slot is done with its job.
    pub fn finish(&mut self) {
        self.now = self.now.plus(GAP);
        self.intake.finished(GAP * self.intake.concurrency as u32, self.now);
    }

    /// What to tell the store, if that is worth it.
    pub fn new_demand(&mut self) -> Option<Demand> {
        self.intake.new_demand(0, self.now)
    }
}

/// The slots of a worker, and what settles their jobs.
pub struct Executor {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    /// They end by being dropped.
    _tasks: JoinSet<()>,
}

impl Executor {
    /// Starts the slots of a worker on the runtime `handlers`, and settling on the one that this is called on.
    ///
    /// # Errors
    /// If the store does not say what time it is.
    pub async fn start(worker: Worker, handlers: &Handle) -> Result<Self, StorageError> {
        panic_guard::install_hook();
        let clock = StoreClock::measured(&*worker.storage).await?;
        let (settler, queue) = Settler::new();
        let shared = Arc::new(Shared::new(worker, clock, settler));
        let mut tasks = JoinSet::new();
        let settling = Arc::clone(&shared);
        tasks.spawn(async move { settlement::run(&settling, queue, CancellationToken::new()).await });
        for _ in 0..shared.concurrency() {
            tasks.spawn_on(executor::slot(Arc::clone(&shared)), handlers);
        }
        Ok(Self { lanes: lanes(shared.queues.len()), shared, _tasks: tasks })
    }

    /// Takes over claims and waits until all their jobs have been completed and settled; forever, if one is not completed.
    pub async fn complete(&self, claims: Vec<Claim>) {
        let shared = &self.shared;
        let completed = || shared.tally.report().completed;
        let until = completed() + claims.len() as u64;
        let now = BootTime::now();
        let held = shared.leases.insert(claims, now);
        let slots = deliver(&mut shared.intake(), held, &self.lanes, now);
        shared.wake(slots);
        while completed() < until {
            // Told after each batch that was settled.
            shared.refill.notified().await;
        }
    }
}

/// Returns how many sleeping slots to wake.
fn deliver(intake: &mut Intake, claims: Vec<Arc<Held>>, lanes: &[Lane], now: BootTime) -> usize {
    intake.push(claims, now);
    intake.emptied(lanes)
}

fn lanes(queues: usize) -> Vec<Lane> {
    (0..queues).flat_map(|queue| Priority::ALL.map(|priority| Lane { queue, priority })).collect()
}
