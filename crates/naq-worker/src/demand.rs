//! How much to claim: from the state of an [`Intake`] to the [`Demand`] that its consumer is given.
//!
//! Invariant: what is claimed is what free slots and the pace can start; a lane more urgent than anything buffered may
//! always deliver some, so that a buffer full of less urgent jobs does not hide it; a paused queue delivers nothing. The
//! store is told only what is worth a round trip.

use naq_models::Priority;
use naq_services::storage::{Demand, Lane};

use crate::{
    clock::BootTime,
    intake::{Intake, LANES},
    pace::UNSETTLED_MAX,
};

impl Intake {
    /// The demand to set at `now`, if it differs enough from what the store was told; `unsettled` jobs are finished and
    /// wait for the store.
    pub(crate) fn new_demand(&mut self, unsettled: usize, now: BootTime) -> Option<Demand> {
        self.heard_low();
        let demand = self.wanted(unsettled, now);
        if !self.is_worth_telling(&demand) {
            return None;
        }
        let ahead = self.pace.ahead(self.busy >= self.concurrency, unsettled, now);
        if self.outstanding == 0 && demand.total > 0 && (ahead == 0 || self.buffered() == 0) {
            self.gate = Some(now);
        }
        self.outstanding = demand.total;
        for lane in &mut self.lanes {
            lane.asked = 0;
        }
        for (lane, count) in &demand.lanes {
            let state = &mut self.lanes[index(*lane)];
            state.asked = *count;
            state.moved = now;
        }
        Some(demand)
    }

    fn is_worth_telling(&self, demand: &Demand) -> bool {
        let shrunk = demand.total * 2 + 16 < self.outstanding || (demand.total == 0 && self.outstanding > 0);
        let grown = demand.total > 0 && demand.total >= self.outstanding * 2 && self.is_low();
        let newly = demand.lanes.iter().any(|(lane, _)| {
            let lane = &self.lanes[index(*lane)];
            lane.asked == 0 && lane.buffer.is_empty() && self.outstanding > 0
        });
        let paused = self.lanes.iter().enumerate().any(|(i, lane)| lane.asked > 0 && self.queues[i / LANES].paused);
        shrunk || grown || newly || paused
    }

    pub(crate) fn wanted(&mut self, unsettled: usize, now: BootTime) -> Demand {
        let mut demand = Demand::default();
        if unsettled >= UNSETTLED_MAX {
            return demand;
        }
        let free = self.concurrency.saturating_sub(self.busy);
        let ahead = self.pace.ahead(free == 0, unsettled, now);
        let buffered = self.buffered();
        self.target = free + ahead;
        let room = self.target.saturating_sub(buffered);
        // Beside a full buffer, a lane more urgent than all of it may deliver what starts soonest.
        let urgent = room.max(free + ahead / 4);
        let mut limit = room;
        for queue in self.turn() {
            let share = self.share(queue, self.target);
            let lanes = &self.lanes[queue * LANES..(queue + 1) * LANES];
            let own: usize = lanes.iter().map(|lane| lane.buffer.len()).sum();
            let mut before = if self.weighted { 0 } else { self.buffered_before(queue) };
            let mut most = 0;
            for (priority, lane) in Priority::ALL.into_iter().zip(lanes) {
                before += lane.buffer.len();
                let count = if before == 0 && buffered > 0 {
                    limit = urgent;
                    urgent.min(share)
                } else {
                    room.min(share.saturating_sub(own))
                };
                if count > 0 {
                    most = most.max(count);
                    demand.lanes.push((Lane { queue, priority }, count));
                }
            }
            demand.total += most;
        }
        demand.total = demand.total.min(limit);
        demand
    }

    /// The queues that may deliver, in the order in which the store should look.
    fn turn(&self) -> Vec<usize> {
        let mut turn: Vec<usize> = (0..self.queues.len()).filter(|queue| !self.queues[*queue].paused).collect();
        if self.weighted {
            turn.sort_by(|a, b| self.queues[*a].pass.total_cmp(&self.queues[*b].pass));
        }
        turn
    }

    /// How many of `target` jobs may be of one queue.
    fn share(&self, queue: usize, target: usize) -> usize {
        if !self.weighted || self.queues[queue].dry {
            return target;
        }
        let flowing: f64 =
            self.queues.iter().filter(|queue| !queue.dry && !queue.paused).map(|queue| queue.weight).sum();
        (target as f64 * self.queues[queue].weight / flowing).ceil() as usize
    }

    fn buffered_before(&self, queue: usize) -> usize {
        self.lanes[..queue * LANES].iter().map(|lane| lane.buffer.len()).sum()
    }
}

fn index(lane: Lane) -> usize {
    lane.queue * LANES + usize::from(lane.priority.get())
}
