//! What is claimed and not started, and which of it starts next: [`Intake`].
//!
//! Invariant: within a queue the most urgent buffered job starts first; queues take their turn in order, or by weight
//! (stride scheduling: a queue's pass grows by 1/weight with each of its jobs, the lowest pass is next). A job waits until
//! the store has said that more urgent lanes are empty; that wait, a round trip as a rule, is bounded. How much to claim is
//! in `demand`. Pure: time is an argument.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use naq_models::Priority;
use naq_services::storage::Lane;

use crate::{clock::BootTime, lease::Held, pace::Pace};

/// A choice waits at most so long for the store's word on more urgent lanes.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// If no slot came free for so long, jobs that were claimed for slots that free seldom are handed back.
const HAND_BACK_AFTER: Duration = Duration::from_millis(500);
/// Priorities per queue.
pub(crate) const LANES: usize = Priority::ALL.len();

/// The buffers of a worker and the state of choosing among them.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) lanes: Vec<LaneState>,
    pub(crate) queues: Vec<QueueState>,
    pub(crate) weighted: bool,
    pub(crate) concurrency: usize,
    /// It has changed since the store was told a demand.
    pub(crate) resized: bool,
    pub(crate) pace: Pace,
    /// Slots that have a job.
    pub(crate) busy: usize,
    /// The lanes of the demand that the store was told, in its order.
    pub(crate) told: Vec<usize>,
    /// How many jobs were wanted, buffered ones included, when this was last computed.
    pub(crate) target: usize,
    /// The owner of the demand has been told that the buffers are low.
    told_low: bool,
    /// Slots that wait for a job.
    waiting: usize,
    /// Suspects that must run alone, and whether one does.
    parked: VecDeque<Arc<Held>>,
    alone: bool,
    /// The pass of the queue that was served last.
    served: f64,
    /// Until when the last choice was put off.
    held_until: Option<BootTime>,
    /// Since when choosing waits for a lane of which the store has to be asked first.
    pub(crate) thirsty_since: Option<BootTime>,
}

/// One priority of one queue.
#[derive(Debug)]
pub(crate) struct LaneState {
    pub(crate) buffer: VecDeque<Arc<Held>>,
    /// What the store may still deliver into this lane.
    pub(crate) asked: usize,
    /// When it was asked after it had not been, or last delivered.
    pub(crate) moved: BootTime,
    /// The store has nothing more of it, or has not said so in time.
    pub(crate) empty: bool,
}

/// One queue.
#[derive(Debug)]
pub(crate) struct QueueState {
    pub(crate) weight: f64,
    pub(crate) pass: f64,
    /// Nothing of it was there when the store last answered.
    pub(crate) dry: bool,
    pub(crate) paused: bool,
    lease: Duration,
}

impl Intake {
    /// For queues with their leases and, if any queue has one, weights.
    pub(crate) fn new(queues: &[(Duration, Option<u32>)], concurrency: usize, now: BootTime) -> Self {
        let lane = || LaneState { buffer: VecDeque::new(), asked: 0, moved: now, empty: false };
        Self {
            lanes: (0..queues.len() * LANES).map(|_| lane()).collect(),
            queues: queues
                .iter()
                .map(|(lease, weight)| QueueState {
                    weight: f64::from(weight.unwrap_or(1)),
                    pass: 0.0,
                    dry: false,
                    paused: false,
                    lease: *lease,
                })
                .collect(),
            weighted: queues.iter().any(|(_, weight)| weight.is_some()),
            concurrency,
            resized: false,
            pace: Pace::new(now),
            busy: 0,
            told: Vec::new(),
            target: 0,
            told_low: false,
            waiting: 0,
            parked: VecDeque::new(),
            alone: false,
            served: 0.0,
            held_until: None,
            thirsty_since: None,
        }
    }

    /// How many jobs are claimed and not started.
    pub(crate) fn buffered(&self) -> usize {
        self.lanes.iter().map(|lane| lane.buffer.len()).sum()
    }

    /// The store has been asked and nothing runs or waits here.
    pub(crate) fn has_nothing(&self) -> bool {
        let empty = |(index, lane): (usize, &LaneState)| lane.empty || self.queues[index / LANES].paused;
        let idle = self.busy == 0 && self.buffered() == 0 && self.parked.is_empty();
        idle && self.lanes.iter().enumerate().all(empty)
    }

    /// Whether the owner of the demand should be woken to refill the buffers: once for each time they run low.
    pub(crate) fn runs_low(&mut self) -> bool {
        let low = self.thirsty_since.is_some() || self.buffered() == 0 || self.is_low();
        let news = low && !self.told_low;
        self.told_low = low;
        news
    }

    /// The demand is about to be computed anew.
    pub(crate) fn heard_low(&mut self) {
        self.told_low = false;
    }

    /// Takes what was claimed; returns how many sleeping slots may now find something.
    pub(crate) fn push(&mut self, claims: Vec<Arc<Held>>, now: BootTime) -> usize {
        let mut delivered = vec![0usize; self.lanes.len()];
        self.thirsty_since = None;
        for held in claims {
            let lane = index(held.claim.lane);
            self.pace.arrived(held.claim.body.len());
            self.lanes[lane].buffer.push_back(held);
            delivered[lane] += 1;
        }
        for (index, count) in delivered.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            // A lane's demand is shared with those before it.
            let from = self.told.iter().position(|lane| *lane == index).unwrap_or(self.told.len());
            for lane in &self.told[from..] {
                self.lanes[*lane].asked = self.lanes[*lane].asked.saturating_sub(count);
            }
            let lane = &mut self.lanes[index];
            lane.empty = false;
            lane.moved = now;
            self.queues[index / LANES].dry = false;
        }
        self.wakeable()
    }

    /// The store has nothing more of these lanes; returns how many sleeping slots may now find something.
    pub(crate) fn emptied(&mut self, lanes: &[Lane]) -> usize {
        for lane in lanes {
            self.lanes[index(*lane)].empty = true;
            let lanes = &self.lanes[lane.queue * LANES..(lane.queue + 1) * LANES];
            self.queues[lane.queue].dry = lanes.iter().all(|lane| lane.empty && lane.buffer.is_empty());
        }
        self.wakeable()
    }

    /// How many sleeping slots to wake for what is here.
    pub(crate) fn wakeable(&self) -> usize {
        self.waiting.min(self.buffered() + self.parked.len()).min(self.free())
    }

    /// How many more jobs may start. None for a while after the concurrency was lowered: then there are more slots than it
    /// allows, and the first to come free stay so.
    pub(crate) fn free(&self) -> usize {
        self.concurrency.saturating_sub(self.busy)
    }

    /// From now on so many jobs may run at once; returns how many sleeping slots may now find something.
    pub(crate) fn resize(&mut self, concurrency: usize) -> usize {
        self.resized |= self.concurrency != concurrency;
        self.concurrency = concurrency;
        self.wakeable()
    }

    /// A slot goes to sleep for want of a job, or wakes up.
    pub(crate) fn sleeps(&mut self) {
        self.waiting += 1;
    }

    pub(crate) fn wakes(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// The slot that took a job `took` ago is done with it.
    pub(crate) fn finished(&mut self, took: Duration, now: BootTime) {
        self.busy = self.busy.saturating_sub(1);
        self.pace.finished(took, now);
    }

    /// The next job to start; the slot that gets it counts as busy.
    pub(crate) fn pick(&mut self, now: BootTime) -> Option<Arc<Held>> {
        let held = self.choose(now)?;
        self.busy += 1;
        Some(held)
    }

    fn choose(&mut self, now: BootTime) -> Option<Arc<Held>> {
        self.held_until = None;
        if self.free() == 0 {
            return None;
        }
        if !self.alone
            && let Some(held) = self.parked.pop_front()
        {
            return Some(held);
        }
        let lane = if self.weighted { self.by_weight(now) } else { self.in_order(now) }?;
        self.thirsty_since = None;
        let queue = &mut self.queues[lane / LANES];
        queue.pass = queue.pass.max(self.served);
        self.served = queue.pass;
        queue.pass += 1.0 / queue.weight;
        self.lanes[lane].buffer.pop_front()
    }

    fn in_order(&mut self, now: BootTime) -> Option<usize> {
        for queue in 0..self.queues.len() {
            match self.front(queue, now) {
                Front::Lane(lane) => return Some(lane),
                Front::Wait(until) => {
                    self.held_until = Some(until);
                    return None;
                }
                Front::Empty => {}
            }
        }
        None
    }

    fn by_weight(&mut self, now: BootTime) -> Option<usize> {
        let mut best: Option<(f64, Front)> = None;
        for queue in 0..self.queues.len() {
            let front = self.front(queue, now);
            let pass = self.queues[queue].pass.max(self.served);
            if !matches!(front, Front::Empty) && best.as_ref().is_none_or(|(lowest, _)| pass < *lowest) {
                best = Some((pass, front));
            }
        }
        match best?.1 {
            Front::Lane(lane) => Some(lane),
            Front::Wait(until) => {
                self.held_until = Some(until);
                None
            }
            Front::Empty => None,
        }
    }

    /// The most urgent lane of a queue that has something, unless a more urgent one may have.
    fn front(&mut self, queue: usize, now: BootTime) -> Front {
        if self.queues[queue].paused {
            return Front::Empty;
        }
        let lanes = &mut self.lanes[queue * LANES..(queue + 1) * LANES];
        let first = lanes.iter().position(|lane| !lane.buffer.is_empty());
        for lane in lanes[..first.unwrap_or(LANES)].iter_mut().filter(|lane| !lane.empty) {
            let since = if lane.asked > 0 { lane.moved } else { *self.thirsty_since.get_or_insert(now) };
            let until = since.plus(ANSWER_WAIT);
            if now < until {
                return Front::Wait(until);
            }
            lane.empty = true;
        }
        first.map_or(Front::Empty, |first| Front::Lane(queue * LANES + first))
    }

    /// Takes the right to run a suspect alone; `false` if another has it, and then the job is put aside until it is free.
    pub(crate) fn enter_alone(&mut self, held: &Arc<Held>) -> bool {
        if self.alone {
            self.parked.push_back(Arc::clone(held));
            return false;
        }
        self.alone = true;
        true
    }

    /// Gives that right back; returns how many sleeping slots to wake.
    pub(crate) fn leave_alone(&mut self) -> usize {
        self.alone = false;
        self.wakeable()
    }

    /// Pauses or resumes queues; returns what was buffered of the paused ones.
    pub(crate) fn pause(&mut self, paused: impl Fn(usize) -> bool) -> Vec<Arc<Held>> {
        let mut back = Vec::new();
        for index in 0..self.queues.len() {
            self.queues[index].paused = paused(index);
            if self.queues[index].paused {
                for lane in &mut self.lanes[index * LANES..(index + 1) * LANES] {
                    back.extend(lane.buffer.drain(..));
                }
            }
        }
        back
    }

    /// Something of a paused queue is here: it was on its way when the queue was paused.
    pub(crate) fn holds_paused(&self) -> bool {
        self.lanes.iter().enumerate().any(|(i, lane)| self.queues[i / LANES].paused && !lane.buffer.is_empty())
    }

    /// What was buffered for too long at `now`: half a lease, or less while slots free seldom.
    pub(crate) fn stale(&mut self, now: BootTime) -> Vec<Arc<Held>> {
        let last_finish = self.pace.last_finish();
        let seldom = self.busy >= self.concurrency && now.since(last_finish) >= HAND_BACK_AFTER;
        let mut back = Vec::new();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let limit = self.queues[index / LANES].lease / 2;
            let limit = if seldom { limit.min(HAND_BACK_AFTER) } else { limit };
            while lane.buffer.front().is_some_and(|held| now.since(held.claimed) >= limit) {
                back.extend(lane.buffer.pop_front());
            }
        }
        back
    }

    /// Everything that has not started, to be handed back.
    pub(crate) fn drain(&mut self) -> Vec<Arc<Held>> {
        self.lanes.iter_mut().flat_map(|lane| lane.buffer.drain(..)).chain(self.parked.drain(..)).collect()
    }

    /// When something changes here by the passing of time alone.
    pub(crate) fn next_wake(&self, now: BootTime) -> Option<BootTime> {
        let choice = self.held_until.filter(|_| self.waiting > 0 && self.buffered() > 0);
        let stall = (self.asks() && self.busy >= self.concurrency)
            .then(|| self.pace.last_finish().plus(crate::pace::AHEAD))
            .filter(|at| *at > now);
        let stale = (self.buffered() > 0).then(|| now.plus(HAND_BACK_AFTER / 4));
        [choice, stall, stale].into_iter().flatten().min()
    }
}

/// Where a lane stands in [`Intake::lanes`].
pub(crate) fn index(lane: Lane) -> usize {
    lane.queue * LANES + usize::from(lane.priority.get())
}

enum Front {
    Lane(usize),
    Wait(BootTime),
    Empty,
}

#[cfg(test)]
mod tests;
