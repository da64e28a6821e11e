//! How much to claim: from the state of an [`Intake`] to the [`Demand`] that its consumer is given.
//!
//! Invariant: a lane may deliver what free slots and the pace can start beyond what is buffered and starts before it, so
//! that a buffer full of less urgent jobs does not hide an urgent one; a paused queue delivers nothing. The store is told
//! only what is worth a round trip.

use naq_models::Priority;
use naq_services::storage::{Demand, Lane};

use crate::{
    clock::BootTime,
    intake::{Intake, LANES, index},
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
        self.thirsty_since = None;
        self.resized = false;
        self.told = demand.lanes.iter().map(|(lane, _)| index(*lane)).collect();
        let mut counts = vec![0; self.lanes.len()];
        for (lane, count) in &demand.lanes {
            counts[index(*lane)] = *count;
        }
        for (lane, count) in self.lanes.iter_mut().zip(counts) {
            if lane.asked == 0 && count > 0 {
                (lane.empty, lane.moved) = (false, now);
            }
            lane.asked = count;
        }
        Some(demand)
    }

    /// The store may still deliver something.
    pub(crate) fn asks(&self) -> bool {
        self.lanes.iter().any(|lane| lane.asked > 0)
    }

    fn is_worth_telling(&self, demand: &Demand) -> bool {
        let asked = self.lanes.iter().map(|lane| lane.asked).max().unwrap_or(0);
        let wanted = demand.most();
        let shrunk = wanted * 2 + 16 < asked || (wanted == 0 && asked > 0);
        let grown = demand.lanes.iter().any(|(lane, count)| self.lacks(index(*lane), *count));
        let newly = demand.lanes.iter().any(|(lane, _)| {
            let lane = &self.lanes[index(*lane)];
            lane.asked == 0 && lane.buffer.is_empty() && (asked > 0 || !lane.empty)
        });
        let paused = self.lanes.iter().enumerate().any(|(i, lane)| lane.asked > 0 && self.queues[i / LANES].paused);
        shrunk || grown || newly || paused || self.resized
    }

    /// Half or more of what should be there to start before anything less urgent than a lane is neither buffered nor
    /// asked for.
    pub(crate) fn is_low(&self) -> bool {
        let mut before = 0;
        self.lanes.iter().enumerate().any(|(index, lane)| {
            if self.weighted && index % LANES == 0 {
                before = 0;
            }
            before += lane.buffer.len();
            !self.queues[index / LANES].paused && self.lacks(index, self.target.saturating_sub(before))
        })
    }

    /// Whether a lane that may deliver `count` was asked for so much less that it is worth telling the store.
    fn lacks(&self, lane: usize, count: usize) -> bool {
        count > 0 && count >= self.lanes[lane].asked * 2 && count * 2 >= self.target
    }

    pub(crate) fn wanted(&mut self, unsettled: usize, now: BootTime) -> Demand {
        let mut demand = Demand::default();
        if unsettled >= UNSETTLED_MAX {
            return demand;
        }
        let free = self.free();
        self.target = free + self.pace.ahead(free == 0, unsettled, now);
        // In the store's eyes a lane's count is shared with those before it; so is the room for lanes in order. Queues with
        // weights have room of their own, on top of that of the queues before.
        let mut base = 0;
        for queue in self.turn() {
            let share = self.share(queue, self.target);
            let mut before = if self.weighted { 0 } else { self.buffered_before(queue) };
            let lanes = &self.lanes[queue * LANES..(queue + 1) * LANES];
            let mut most = 0;
            for (priority, lane) in Priority::ALL.into_iter().zip(lanes) {
                before += lane.buffer.len();
                let room = share.saturating_sub(before);
                if room > 0 {
                    most = most.max(room);
                    demand.lanes.push((Lane { queue, priority }, base + room));
                }
            }
            base += if self.weighted { most } else { 0 };
        }
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
