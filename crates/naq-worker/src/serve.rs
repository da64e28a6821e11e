//! A running worker: start, the serving loop, stop.
//!
//! Invariant: one loop owns the consumer and is the only one to change its demand; it never waits for the store itself.
//! Every claim that was handed out has been settled, handed back or given up when [`serve`] returns. Runs on a thread of
//! its own; slots run on the caller's runtime.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use naq_services::{
    StorageErrorKind,
    storage::{Claim, Consumer, ConsumerEvent, ConsumerOptions, QueueOptions},
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Adjustable, Shutdown, burst,
    cancel::ControlWatch,
    clock::{BootTime, StoreClock},
    executor,
    heartbeat::Beating,
    lease::{Held, Phase, RunningHere, StopReason, Traces},
    panic_guard,
    presence::{Identity, Presence, Stage},
    report::WorkerReport,
    scheduler::Scheduler,
    settlement::{self, Settler},
    shared::Shared,
    worker::{Worker, WorkerError},
};

/// After their tokens have fired, handlers have so long to end before they are dropped.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A stopping worker gives the store so long to take its settlements, and its hand-backs, each.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// The same when it was asked to stop now.
const STORE_PATIENCE_NOW: Duration = Duration::from_secs(3);
/// Handlers have so long to end what they keep between runs.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// With nothing else to wake it, the loop looks around so often.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// Leases per hand-back.
const HAND_BACK: usize = 512;

/// Runs a worker to its end.
pub(crate) async fn serve(worker: Worker, handlers: Handle, shutdown: Shutdown) -> Result<WorkerReport, WorkerError> {
    panic_guard::install_hook();
    let _health = worker.health.ends();
    let (mut running, consumer) = Running::start(worker, handlers).await?;
    running.claim(consumer, &shutdown).await;
    running.finish(&shutdown).await;
    running.end(&shutdown).await
}

struct Running {
    shared: Arc<Shared>,
    slots: JoinSet<()>,
    /// Presence, controls, scheduler: they end when told to.
    services: JoinSet<()>,
    stop_services: Shutdown,
    stage: watch::Sender<Stage>,
    adjusted: watch::Receiver<Adjustable>,
    /// Where slots run.
    handlers: Handle,
    settling: JoinSet<()>,
    settled: CancellationToken,
    hand_backs: JoinSet<()>,
    /// Fires when a burst has nothing left to do.
    burst_over: CancellationToken,
    heartbeat: Beating,
    started: BootTime,
}

/// What the serving loop reacts to.
enum Event {
    Consumer(ConsumerEvent),
    Refill,
    Pauses,
    Adjusted,
    Time,
    HandedBack,
    Stop,
}

impl Running {
    async fn start(worker: Worker, handlers: Handle) -> Result<(Self, Box<dyn Consumer>), WorkerError> {
        let store = |during| move |source| WorkerError::Store { during, source };
        let clock = StoreClock::measured(&*worker.storage).await.map_err(store("ask the store for its time"))?;
        let (settler, queue) = Settler::new();
        let identity = Identity::of(&worker, clock.now());
        let shared = Arc::new(Shared::new(worker, clock, settler));
        let watch = ControlWatch::open(&*shared.storage, &shared.controls, &shared.leases)
            .await
            .map_err(store("read what is paused and cancelled"))?;
        let (stop_services, stage) = (Shutdown::new(), watch::Sender::new(Stage::Serving));
        let (kept, presence) = oneshot::channel();
        let stages = stage.subscribe();
        let heartbeat = Beating::start(
            Arc::clone(&shared),
            Presence { identity, stage: stages, stop: stop_services.clone(), kept },
        )
        .await?;
        let consumer = match shared.storage.open_consumer(consumer_options(&shared)).await {
            Ok(consumer) => consumer,
            Err(source) => {
                heartbeat.stop().await;
                return Err(WorkerError::Store { during: "open its queues", source });
            }
        };
        let mut running = Self {
            slots: JoinSet::new(),
            services: JoinSet::new(),
            stop_services,
            stage,
            adjusted: shared.adjuster.follow(),
            handlers,
            settling: JoinSet::new(),
            settled: CancellationToken::new(),
            hand_backs: JoinSet::new(),
            burst_over: CancellationToken::new(),
            heartbeat,
            started: BootTime::now(),
            shared,
        };
        // It ends with an error, by being dropped.
        running.services.spawn(async move { _ = presence.await });
        running.spawn_parts(watch, queue);
        Ok((running, consumer))
    }

    fn spawn_parts(&mut self, watch: ControlWatch, queue: settlement::Queue) {
        let (shared, done) = (Arc::clone(&self.shared), self.settled.clone());
        self.settling.spawn(async move { settlement::run(&shared, queue, done).await });
        let (shared, stop) = (Arc::clone(&self.shared), self.stop_services.clone());
        self.services.spawn(async move {
            tokio::select! {
                () = watch.follow(&shared.controls, &shared.leases) => {}
                () = stop.requested_now() => {}
            }
        });
        let (shared, stop) = (Arc::clone(&self.shared), self.stop_services.clone());
        self.services.spawn(async move {
            tokio::select! {
                () = keep_up(&shared) => {}
                () = stop.requested_now() => {}
            }
        });
        if self.shared.options.burst {
            let (shared, stop, over) = (Arc::clone(&self.shared), self.stop_services.clone(), self.burst_over.clone());
            self.services.spawn(async move {
                tokio::select! {
                    () = burst::over(&shared) => over.cancel(),
                    () = stop.requested() => {}
                }
            });
        }
        if let Some(options) = self.shared.options.scheduler.clone() {
            let (shared, stop) = (Arc::clone(&self.shared), self.stop_services.clone());
            let holder = shared.worker_id.to_string();
            let scheduler = Scheduler::new(shared.storage.clone(), holder, options, shared.options.wire_format)
                .with_events(shared.events.clone());
            self.services.spawn(async move {
                if let Err(error) = scheduler.run(&stop).await {
                    shared.fail(WorkerError::Scheduler(error));
                }
            });
        }
    }

    /// Claims jobs until there is a reason to stop.
    async fn claim(&mut self, mut consumer: Box<dyn Consumer>, shutdown: &Shutdown) {
        self.apply_adjustments();
        self.shared.health.serves();
        loop {
            self.tell_demand(&mut *consumer);
            let event = self.next_event(&mut *consumer, shutdown).await;
            match event {
                Event::Consumer(ConsumerEvent::Claimed(claims)) => self.take_over(claims),
                Event::Consumer(ConsumerEvent::Empty(lanes)) => {
                    let slots = self.shared.intake().emptied(&lanes);
                    self.shared.wake(slots);
                }
                Event::Consumer(ConsumerEvent::Trouble(error)) => {
                    tracing::warn!(%error, "claiming fails; it goes on trying");
                    if error.kind() == StorageErrorKind::Closed {
                        self.shared.fail(WorkerError::Store { during: "claim jobs", source: error });
                    }
                }
                Event::Pauses => self.apply_pauses(),
                Event::Adjusted => self.apply_adjustments(),
                Event::Time => self.pass_time(),
                Event::Refill | Event::HandedBack => {}
                Event::Stop => break,
            }
        }
        self.shared.health.stops();
        self.shared.close();
        self.stage.send_replace(Stage::Stopping);
        let held = self.shared.intake().drain();
        self.hand_back(held);
        // Beside the running jobs: a store that does not answer must not keep a second request waiting.
        self.hand_backs.spawn(async move {
            if let Err(error) = consumer.close().await {
                tracing::warn!(%error, "the consumer was not closed in order");
            }
        });
    }

    async fn next_event(&mut self, consumer: &mut dyn Consumer, shutdown: &Shutdown) -> Event {
        let now = BootTime::now();
        let wake = self.shared.intake().next_wake(now).map_or(LOOK_AROUND, |at| at.since(now).min(LOOK_AROUND));
        // Every branch is cancel safe.
        tokio::select! {
            biased;
            () = shutdown.requested() => Event::Stop,
            () = self.shared.failed() => Event::Stop,
            () = self.heartbeat.ended() => {
                self.shared.fail(WorkerError::Heartbeat);
                Event::Stop
            }
            event = consumer.next() => Event::Consumer(event),
            () = self.shared.refill.notified() => Event::Refill,
            () = self.shared.controls.pauses_changed.notified() => Event::Pauses,
            // The sender lives in `shared`.
            Ok(()) = self.adjusted.changed() => Event::Adjusted,
            Some(_) = self.hand_backs.join_next() => Event::HandedBack,
            () = self.burst_over.cancelled() => Event::Stop,
            () = sleep_until(Instant::now() + wake) => Event::Time,
        }
    }

    fn tell_demand(&self, consumer: &mut dyn Consumer) {
        let unsettled = self.shared.settler.unsettled();
        let demand = self.shared.intake().new_demand(unsettled, BootTime::now());
        if let Some(demand) = demand {
            consumer.demand(demand);
        }
    }

    fn take_over(&mut self, claims: Vec<Claim>) {
        let now = BootTime::now();
        let held = self.shared.leases.insert(claims, now);
        let (slots, paused) = {
            let mut intake = self.shared.intake();
            (intake.push(held, now), intake.holds_paused())
        };
        self.shared.wake(slots);
        if paused {
            self.apply_pauses();
        }
    }

    fn apply_pauses(&mut self) {
        let shared = Arc::clone(&self.shared);
        let back = shared.intake().pause(|queue| shared.is_paused(&shared.queues[queue].name));
        self.hand_back(back);
    }

    /// Makes as many slots as may run jobs. There are never fewer: one without a job costs some kilobytes, and to be one too
    /// many it only has to sleep.
    fn apply_adjustments(&mut self) {
        let concurrency = self.adjusted.borrow_and_update().concurrency;
        let slots = self.shared.intake().resize(concurrency);
        self.shared.wake(slots);
        for _ in self.slots.len()..concurrency {
            self.slots.spawn_on(executor::slot(Arc::clone(&self.shared)), &self.handlers);
        }
        self.apply_pauses();
        self.shared.check_stuck();
    }

    fn pass_time(&mut self) {
        let (stale, slots) = {
            let mut intake = self.shared.intake();
            let stale = intake.stale(BootTime::now());
            (stale, intake.wakeable())
        };
        self.shared.wake(slots);
        self.hand_back(stale);
    }

    /// Gives back what was buffered, beside the loop.
    fn hand_back(&mut self, held: Vec<Arc<Held>>) {
        let released: Vec<_> = held.into_iter().filter(|held| held.advance(Phase::Buffered, Phase::Released)).collect();
        for batch in released.chunks(HAND_BACK) {
            let (shared, batch) = (Arc::clone(&self.shared), batch.to_vec());
            self.hand_backs.spawn(async move { executor::hand_back(&shared, &batch, Traces::default()).await });
        }
    }

    /// Lets running jobs end, as long as they may; then stops them.
    async fn finish(&mut self, shutdown: &Shutdown) {
        let running = self.shared.leases.running().len();
        tracing::info!(running, "stops: claims nothing more");
        let limit = self.shared.adjuster.look().shutdown_timeout;
        tokio::select! {
            () = join_slots(&mut self.slots, &self.shared) => return,
            () = sleep(limit) => tracing::warn!("running jobs did not end in time and are handed back"),
            () = shutdown.requested_now() => tracing::warn!("asked again: running jobs are handed back"),
        }
        for held in self.shared.leases.running() {
            held.stop(StopReason::Shutdown);
        }
        if timeout(LAST_WORDS, join_slots(&mut self.slots, &self.shared)).await.is_err() {
            self.slots.abort_all();
            // A slot that is stuck in its handler cannot be aborted: it ends with the process.
            let aborted = async { while self.slots.join_next().await.is_some() {} };
            let _stuck = timeout(LAST_WORDS, aborted).await;
        }
    }

    /// Settles and hands back what is left, then takes everything down.
    async fn end(mut self, shutdown: &Shutdown) -> Result<WorkerReport, WorkerError> {
        let patience = async {
            tokio::select! {
                () = sleep(STORE_PATIENCE) => {}
                () = async { shutdown.requested_now().await; sleep(STORE_PATIENCE_NOW).await } => {}
            }
        };
        self.settled.cancel();
        let in_order = async {
            self.give_back_running().await;
            while self.hand_backs.join_next().await.is_some() {}
            while self.settling.join_next().await.is_some() {}
            self.shared.suspects.forgive_owed().await;
        };
        let done = tokio::select! {
            () = in_order => true,
            () = patience => false,
        };
        if !done {
            tracing::error!("the store did not take everything; the rest comes back when its leases run out");
        }
        self.settling.shutdown().await;
        self.hand_backs.shutdown().await;
        self.stop_services.request_now();
        if timeout(STORE_PATIENCE_NOW, async { while self.services.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("the worker's entry or the scheduler's lock was not removed; they run out by themselves");
        }
        self.services.shutdown().await;
        if timeout(CLOSE_PATIENCE, self.shared.handlers.close()).await.is_err() {
            tracing::warn!("handlers did not close what they keep between runs");
        }
        self.heartbeat.stop().await;
        let left = self.shared.leases.all();
        let unsettled = left.iter().filter(|held| matches!(held.phase(), Phase::Settling | Phase::Abandoned)).count();
        self.shared.tally.unsettled.fetch_add(unsettled as u64, Ordering::Relaxed);
        let report = self.shared.tally.report();
        tracing::info!(?report, "stopped");
        self.shared.tell_stopped(self.started);
        self.shared.error().map_or(Ok(report), Err)
    }

    /// What still runs, or was picked and not started, when its slot was dropped.
    async fn give_back_running(&self) {
        let left: Vec<_> = self
            .shared
            .leases
            .all()
            .into_iter()
            .filter(|held| {
                held.advance(Phase::Running, Phase::Released) || held.advance(Phase::Buffered, Phase::Released)
            })
            .collect();
        let (suspects, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|held| held.run().is_some_and(|run| run.traces.suspect));
        for (held, suspect) in [(others, false), (suspects, true)] {
            for batch in held.chunks(HAND_BACK) {
                executor::hand_back(&self.shared, batch, Traces { scheduled: false, suspect }).await;
            }
        }
    }
}

/// Asks for the store's time now and then, and tells it what it could not be told before; never ends.
async fn keep_up(shared: &Shared) {
    loop {
        sleep(shared.options.heartbeat_interval).await;
        shared.suspects.forgive_owed().await;
        if let Err(error) = shared.clock.measure(&*shared.storage).await {
            tracing::warn!(%error, "the store's clock could not be asked");
        }
    }
}

fn consumer_options(shared: &Shared) -> ConsumerOptions {
    ConsumerOptions {
        worker_id: shared.worker_id.to_string(),
        queues: shared
            .queues
            .iter()
            .map(|queue| QueueOptions {
                name: queue.name.clone(),
                lease: queue.lease.unwrap_or(shared.options.lease),
                max_ack_pending: queue.max_ack_pending,
            })
            .collect(),
        running: Arc::new(RunningHere { worker_id: Arc::clone(&shared.worker_id), leases: Arc::clone(&shared.leases) }),
    }
}

/// Waits until no slot has a job but those that are stuck in theirs.
async fn join_slots(slots: &mut JoinSet<()>, shared: &Shared) {
    const LOOK: Duration = Duration::from_millis(100);
    while slots.len() > shared.tally.stuck.load(Ordering::Relaxed) {
        tokio::select! {
            Some(ended) = slots.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a slot has died");
                }
            }
            () = sleep(LOOK) => {}
        }
    }
}
