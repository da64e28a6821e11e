//! [`SqliteConsumer`]: claims for one worker.
//!
//! Invariant: at most one claim is under way, it asks for no more than the demand, and it lives in the consumer, not in
//! the future of `next`: dropping that future loses nothing. Between claims it sleeps until the store announces a change,
//! or until it is time to look for leases that ran out.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    claims::{self, Ask, Claimed, MAX_CLAIM},
    core::Session,
    writer::Commit,
};
use crate::storage::{
    Consumer, ConsumerEvent, ConsumerOptions, Demand, Lane, Lease, QueueOptions, Result, StorageError,
};

/// How often a waiting or working consumer looks for leases that ran out.
const RECLAIM_EVERY: Duration = Duration::from_millis(500);
/// At most one report of trouble in this time, and the longest pause between attempts.
const TROUBLE_EVERY: Duration = Duration::from_secs(1);
/// The pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct SqliteConsumer {
    session: Arc<Session>,
    worker_id: Arc<str>,
    queues: Arc<[QueueOptions]>,
    demand: Demand,
    jobs: watch::Receiver<u64>,
    /// Room under a limit of a queue; watched where a queue has one.
    freed: Option<watch::Receiver<u64>>,
    under_way: Option<BoxFuture<'static, Result<Claimed>>>,
    /// Reports to be handed out.
    ready: VecDeque<ConsumerEvent>,
    /// There may be something to claim.
    ask: bool,
    /// Lanes that were reported as empty, and have delivered nothing since.
    empty: Vec<Lane>,
    reclaimed_at: Option<Instant>,
    retry_at: Option<Instant>,
    pause: Duration,
    reported_at: Option<Instant>,
    /// Set when the consumer goes, so that a claim still in the inbox claims nothing.
    gone: Arc<AtomicBool>,
}

impl Drop for SqliteConsumer {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
    }
}

impl SqliteConsumer {
    pub(super) fn open(session: Arc<Session>, options: ConsumerOptions) -> Self {
        let limited = options.queues.iter().any(|queue| queue.max_ack_pending.is_some());
        let wake = &session.core.wake;
        Self {
            jobs: wake.jobs.subscribe(),
            freed: limited.then(|| wake.freed.subscribe()),
            worker_id: options.worker_id.into(),
            queues: options.queues.into(),
            demand: Demand::default(),
            under_way: None,
            ready: VecDeque::new(),
            ask: false,
            empty: Vec::new(),
            reclaimed_at: None,
            retry_at: None,
            pause: FIRST_PAUSE,
            reported_at: None,
            gone: Arc::default(),
            session,
        }
    }

    fn wants_nothing(&self) -> bool {
        self.demand.is_nothing()
    }

    fn start_claim(&mut self) {
        self.ask = false;
        self.jobs.mark_unchanged();
        if let Some(freed) = &mut self.freed {
            freed.mark_unchanged();
        }
        let now = Instant::now();
        let reclaim = self.reclaimed_at.is_none_or(|at| now >= at + RECLAIM_EVERY);
        if reclaim {
            self.reclaimed_at = Some(now);
        }
        let ask = Ask {
            worker_id: Arc::clone(&self.worker_id),
            queues: Arc::clone(&self.queues),
            demand: self.demand.clone(),
            reclaim,
        };
        let (session, gone) = (Arc::clone(&self.session), Arc::clone(&self.gone));
        self.under_way = Some(Box::pin(async move {
            let weight = ask.demand.most().min(MAX_CLAIM);
            session
                .write("claim", Commit::Soft, weight, move |tx| {
                    if gone.load(Ordering::Acquire) { Ok(Claimed::default()) } else { claims::claim(tx, &ask) }
                })
                .await
        }));
    }

    fn arrived(&mut self, outcome: Result<Claimed>) {
        let Claimed { claims, empty } = match outcome {
            Ok(claimed) => claimed,
            Err(error) => return self.failed(error),
        };
        (self.retry_at, self.pause) = (None, FIRST_PAUSE);
        let count = claims.len();
        for claim in &claims {
            self.demand.delivered(claim.lane);
            self.empty.retain(|lane| *lane != claim.lane);
        }
        // A claim that was cut short says nothing of what is left.
        self.ask |= count >= MAX_CLAIM;
        if count > 0 {
            self.ready.push_back(ConsumerEvent::Claimed(claims));
        }
        let news: Vec<Lane> = empty.into_iter().filter(|lane| !self.empty.contains(lane)).collect();
        if !news.is_empty() {
            self.empty.extend(&news);
            self.ready.push_back(ConsumerEvent::Empty(news));
        }
    }

    fn failed(&mut self, error: StorageError) {
        let now = Instant::now();
        self.ask = true;
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(TROUBLE_EVERY);
        if self.reported_at.is_none_or(|at| now >= at + TROUBLE_EVERY) {
            self.reported_at = Some(now);
            self.ready.push_back(ConsumerEvent::Trouble(error));
        }
    }

    /// Waits until there may be something to claim.
    async fn wait(&mut self) {
        if self.ask {
            let until = self.retry_at.unwrap_or_else(Instant::now);
            return sleep_until(until).await;
        }
        let _watching = self.session.watch();
        let reclaim_at = self.reclaimed_at.map_or_else(Instant::now, |at| at + RECLAIM_EVERY);
        let freed = async {
            match &mut self.freed {
                Some(freed) => freed.changed().await,
                None => pending().await,
            }
        };
        // The senders live in the session that this consumer holds, so every `changed` is a change.
        tokio::select! {
            _ = self.jobs.changed() => {}
            _ = freed => {}
            () = sleep_until(reclaim_at) => {}
        }
        self.ask = true;
    }
}

#[async_trait]
impl Consumer for SqliteConsumer {
    fn demand(&mut self, demand: Demand) {
        let before = std::mem::replace(&mut self.demand, demand);
        self.empty.retain(|lane| before.lanes.iter().any(|(asked, count)| asked == lane && *count > 0));
        self.ask |= !self.wants_nothing();
    }

    async fn next(&mut self) -> ConsumerEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            if let Some(under_way) = &mut self.under_way {
                let outcome = under_way.await;
                self.under_way = None;
                self.arrived(outcome);
            } else if self.wants_nothing() {
                pending::<()>().await;
            } else if self.ask && self.retry_at.is_none_or(|at| Instant::now() >= at) {
                self.start_claim();
            } else {
                self.wait().await;
            }
        }
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        let mut outstanding = Vec::new();
        if let Some(under_way) = self.under_way.take() {
            outstanding.extend(under_way.await?.claims);
        }
        for event in self.ready.drain(..) {
            if let ConsumerEvent::Claimed(claims) = event {
                outstanding.extend(claims);
            }
        }
        if outstanding.is_empty() {
            return Ok(());
        }
        let leases: Vec<Lease> = outstanding.into_iter().map(|claim| claim.lease).collect();
        let weight = leases.len();
        self.session.write("close", Commit::Soft, weight, move |tx| claims::hand_back(tx, &leases)).await
    }
}
