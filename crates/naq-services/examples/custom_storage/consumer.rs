//! The receiving end of a worker: claims on demand, waits for changes and for leases that run out.
//!
//! Invariant: a claim is made in the same step in which it is handed out, so there is nothing to lose in a dropped
//! `next()` and nothing to give back at the end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use naq_models::Timestamp;
use naq_services::storage::{
    Bucket, Claim, Consumer, ConsumerEvent, ConsumerOptions, Demand, Heartbeat, Lane, Lease, LeaseState, Result,
    RunningAt,
};
use tokio::sync::watch;

use super::{backend::host_now, state::Shared};

pub(crate) struct MemoryConsumer {
    shared: Arc<Shared>,
    options: ConsumerOptions,
    demand: Demand,
    /// Lanes that were reported as empty, and have delivered nothing since.
    empty: Vec<Lane>,
    changes: watch::Receiver<u64>,
}

impl MemoryConsumer {
    pub(crate) fn new(shared: Arc<Shared>, options: ConsumerOptions) -> Self {
        let changes = shared.changes.subscribe();
        Self { shared, options, demand: Demand::default(), empty: Vec::new(), changes }
    }

    /// Claims what is there, up to the demand; also which lanes had less than that.
    fn claim(&mut self, started_at: Timestamp) -> (Vec<Claim>, Vec<Lane>) {
        let mut state = self.shared.look();
        let (mut claims, mut empty) = (Vec::new(), Vec::new());
        for (lane, wanted) in self.demand.lanes.clone() {
            let Some(queue) = self.options.queues.get(lane.queue) else { continue };
            while claims.len() < wanted {
                let by = RunningAt { worker_id: self.options.worker_id.clone(), started_at };
                let place = (&queue.name, lane.priority);
                let Some((lease, job)) = state.claim(place, queue.max_ack_pending, by, queue.lease) else { break };
                self.demand.delivered(lane);
                claims.push(Claim {
                    lease,
                    lane,
                    address: job.entry.address.clone(),
                    body: job.entry.body.clone(),
                    doubtful: job.suspect,
                });
            }
            if claims.len() < wanted {
                empty.push(lane);
            }
        }
        (claims, empty)
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    fn demand(&mut self, demand: Demand) {
        let before = std::mem::replace(&mut self.demand, demand);
        self.empty.retain(|lane| before.lanes.iter().any(|(asked, count)| asked == lane && *count > 0));
    }

    async fn next(&mut self) -> ConsumerEvent {
        loop {
            self.changes.borrow_and_update();
            let (claims, mut empty) = self.claim(host_now());
            if !claims.is_empty() {
                self.empty.retain(|lane| claims.iter().all(|claim| claim.lane != *lane));
                return ConsumerEvent::Claimed(claims);
            }
            empty.retain(|lane| !self.empty.contains(lane));
            if !empty.is_empty() {
                self.empty.extend(&empty);
                return ConsumerEvent::Empty(empty);
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
    async fn extend(&self, leases: &[Lease]) -> Vec<LeaseState> {
        let mut state = self.0.look();
        leases.iter().map(|lease| state.extend(lease)).collect()
    }

    async fn put(&self, bucket: Bucket, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        let place = (bucket, key);
        let put = self.0.change(|state| {
            let there = state.kv_get(place.0, place.1).map(|slot| slot.entry.revision);
            state.kv_put(&self.0.kv_events, place, value, there, Some(ttl))
        });
        put.map(|_revision| ())
    }
}
