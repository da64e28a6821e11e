//! The receiving end of a worker: claims on demand, waits for changes and for leases that run out.
//!
//! Invariant: a claim is made in the same step in which it is handed out, so there is nothing to lose in a dropped
//! `next()` and nothing to give back at the end.

use std::sync::Arc;

use async_trait::async_trait;
use naq_models::Timestamp;
use naq_services::storage::{
    Claim, Consumer, ConsumerEvent, ConsumerOptions, Demand, Heartbeat, Lease, LeaseState, Result, RunningAt,
};
use tokio::sync::watch;

use super::{backend::host_now, state::Shared};

pub(crate) struct MemoryConsumer {
    shared: Arc<Shared>,
    options: ConsumerOptions,
    demand: Demand,
    answered: bool,
    changes: watch::Receiver<u64>,
}

impl MemoryConsumer {
    pub(crate) fn new(shared: Arc<Shared>, options: ConsumerOptions) -> Self {
        let changes = shared.changes.subscribe();
        Self { shared, options, demand: Demand::default(), answered: false, changes }
    }

    /// Claims what is there, up to the demand.
    fn claim(&mut self, started_at: Timestamp) -> Vec<Claim> {
        let mut state = self.shared.look();
        let mut claims = Vec::new();
        for (lane, wanted) in &mut self.demand.lanes {
            let Some(queue) = self.options.queues.get(lane.queue) else { continue };
            while *wanted > 0 && self.demand.total > 0 {
                let by = RunningAt { worker_id: self.options.worker_id.clone(), started_at };
                let place = (&queue.name, lane.priority);
                let Some((lease, job)) = state.claim(place, queue.max_ack_pending, by, queue.lease) else { break };
                *wanted -= 1;
                self.demand.total -= 1;
                claims.push(Claim {
                    lease,
                    lane: *lane,
                    address: job.entry.address.clone(),
                    body: job.entry.body.clone(),
                    doubtful: job.suspect,
                });
            }
        }
        claims
    }

    fn wants(&self) -> bool {
        self.demand.total > 0 && self.demand.lanes.iter().any(|(_, wanted)| *wanted > 0)
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    fn demand(&mut self, demand: Demand) {
        let wanted_nothing = !self.wants();
        self.demand = demand;
        if wanted_nothing {
            self.answered = false;
        }
    }

    async fn next(&mut self) -> ConsumerEvent {
        loop {
            self.changes.borrow_and_update();
            let claims = self.claim(host_now());
            if !claims.is_empty() {
                self.answered = false;
                return ConsumerEvent::Claimed(claims);
            }
            if self.wants() && !self.answered {
                self.answered = true;
                return ConsumerEvent::Answered;
            }
            let expiry = self.shared.look().next_expiry();
            tokio::select! {
                // The sender lives in `shared`, which is held here.
                _ = self.changes.changed() => {}
                () = until(expiry) => {}
            }
        }
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Sleeps until a moment, or for ever.
pub(crate) async fn until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

pub(crate) struct MemoryHeartbeat(pub(crate) Arc<Shared>);

#[async_trait]
impl Heartbeat for MemoryHeartbeat {
    async fn extend(&mut self, leases: &[Lease]) -> Vec<LeaseState> {
        let mut state = self.0.look();
        leases.iter().map(|lease| state.extend(lease)).collect()
    }
}
