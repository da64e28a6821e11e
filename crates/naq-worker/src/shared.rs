//! What the parts of one running worker share: [`Shared`].
//!
//! Invariant: wiring only. Each field has one module that owns its meaning; what is here is how a slot gets its next job
//! and how parts tell each other to go on or to stop.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use naq_models::QueueName;
use naq_services::{EventHook, context::States, storage::SharedStorage};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    Adjuster, HandlerRegistry,
    cancel::Controls,
    clock::{BootTime, StoreClock},
    health::Health,
    intake::Intake,
    lease::{Held, Leases},
    options::{QueueSpec, WorkerOptions},
    progress::ProgressBoard,
    report::Tally,
    settlement::Settler,
    suspects::Suspects,
    worker::{Worker, WorkerError},
};

pub(crate) struct Shared {
    pub(crate) storage: SharedStorage,
    pub(crate) worker_id: Arc<str>,
    pub(crate) handlers: HandlerRegistry,
    pub(crate) states: Arc<States>,
    pub(crate) options: WorkerOptions,
    pub(crate) queues: Vec<QueueSpec>,
    pub(crate) adjuster: Adjuster,
    pub(crate) leases: Arc<Leases>,
    pub(crate) controls: Controls,
    pub(crate) clock: StoreClock,
    pub(crate) suspects: Suspects,
    pub(crate) progress: ProgressBoard,
    pub(crate) tally: Tally,
    pub(crate) settler: Settler,
    pub(crate) events: EventHook,
    pub(crate) health: Health,
    /// The largest body that the store takes, in bytes.
    pub(crate) max_body: usize,
    intake: Mutex<Intake>,
    /// Sleeping slots wait here for jobs.
    ready: Notify,
    /// The serving loop waits here for a reason to claim more.
    pub(crate) refill: Notify,
    /// Slots take no more jobs.
    closing: AtomicBool,
    fatal: Mutex<Option<WorkerError>>,
    failed: CancellationToken,
}

impl Shared {
    pub(crate) fn new(worker: Worker, clock: StoreClock, settler: Settler) -> Self {
        let Worker { storage, id, handlers, states, options, queues, adjuster, events, health, .. } = worker;
        let shares: Vec<_> = queues
            .iter()
            .map(|queue| (queue.lease.unwrap_or(options.lease), queue.weight.map(std::num::NonZeroU32::get)))
            .collect();
        let concurrency = adjuster.look().concurrency;
        Self {
            leases: Arc::default(),
            controls: Controls::default(),
            suspects: Suspects::new(storage.clone()),
            progress: ProgressBoard::default(),
            tally: Tally::default(),
            max_body: storage.info().max_body,
            intake: Mutex::new(Intake::new(&shares, concurrency, BootTime::now())),
            ready: Notify::new(),
            refill: Notify::new(),
            closing: AtomicBool::new(false),
            fatal: Mutex::new(None),
            failed: CancellationToken::new(),
            storage,
            worker_id: id,
            handlers,
            states,
            options,
            queues,
            adjuster,
            clock,
            settler,
            events,
            health,
        }
    }

    pub(crate) fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job for a slot, which took its last one at `since`; `None` when no more are to be started.
    pub(crate) async fn take(&self, mut since: Option<BootTime>) -> Option<Arc<Held>> {
        loop {
            if let Some(held) = self.look(&mut since, false) {
                return Some(held);
            }
            let mut woken = std::pin::pin!(self.ready.notified());
            // Registered before the second look, so that no wake-up is lost between looking and sleeping.
            woken.as_mut().enable();
            if let Some(held) = self.look(&mut since, true) {
                self.intake().wakes();
                return Some(held);
            }
            if self.is_closing() {
                self.intake().wakes();
                return None;
            }
            woken.await;
            self.intake().wakes();
        }
    }

    fn look(&self, since: &mut Option<BootTime>, sleepy: bool) -> Option<Arc<Held>> {
        let now = BootTime::now();
        let (held, low) = {
            let mut intake = self.intake();
            if let Some(since) = since.take() {
                intake.finished(now.since(since), now);
            }
            if sleepy {
                intake.sleeps();
            }
            let held = if self.is_closing() { None } else { intake.pick(now) };
            (held, intake.runs_low())
        };
        if low {
            self.refill.notify_one();
        }
        held
    }

    /// Wakes so many sleeping slots.
    pub(crate) fn wake(&self, slots: usize) {
        for _ in 0..slots {
            self.ready.notify_one();
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Lets no slot take another job.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.ready.notify_waiters();
    }

    /// Ends the worker with an error. The first one stays.
    pub(crate) fn fail(&self, error: WorkerError) {
        tracing::error!(error = &error as &dyn std::error::Error, "the worker cannot go on");
        self.tell_error(&error);
        // Only the first is reported; the others follow from it.
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.cancel();
    }

    /// Counts a slot that is stuck in its handler; with half of them stuck the worker ends.
    pub(crate) fn count_stuck(&self) {
        let stuck = self.tally.stuck.fetch_add(1, Ordering::Relaxed) + 1;
        let concurrency = self.concurrency();
        tracing::error!(stuck, concurrency, "a handler does not end; its slot is stuck");
        self.check_stuck();
    }

    /// Ends the worker if half of its slots or more are stuck.
    pub(crate) fn check_stuck(&self) {
        let (stuck, concurrency) = (self.tally.stuck.load(Ordering::Relaxed), self.concurrency());
        if stuck * 2 >= concurrency && !self.is_closing() {
            self.fail(WorkerError::Stuck { stuck, concurrency });
        }
    }

    /// How many jobs may run at once, as slots are held to it.
    pub(crate) fn concurrency(&self) -> usize {
        self.intake().concurrency
    }

    /// Whether a queue is paused: for every worker, or for this one.
    pub(crate) fn is_paused(&self, queue: &QueueName) -> bool {
        self.controls.is_paused(queue) || self.adjuster.look().paused.contains(queue)
    }

    /// Waits until the worker must end with an error.
    pub(crate) async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// What the worker must end with, if it must; given out once.
    pub(crate) fn error(&self) -> Option<WorkerError> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
