//! The intake's choices: order, weights, demand, hand-back.

use super::*;
use crate::lease::{
    Leases,
    tests::{at, claim},
};

const LEASE: Duration = Duration::from_secs(30);

fn lane(queue: usize, priority: u8) -> Lane {
    Lane { queue, priority: Priority::new(priority).unwrap() }
}

type LaneDemand = (usize, u8, usize);

struct Bench {
    intake: Intake,
    leases: Leases,
    now: BootTime,
}

impl Bench {
    fn new(weights: &[Option<u32>], concurrency: usize) -> Self {
        let queues: Vec<_> = weights.iter().map(|weight| (LEASE, *weight)).collect();
        Self { intake: Intake::new(&queues, concurrency, at(1)), leases: Leases::default(), now: at(1) }
    }

    fn deliver(&mut self, lane: Lane, names: &[&str]) {
        let claims = names.iter().map(|name| claim(name, lane)).collect();
        let held = self.leases.insert(claims, self.now);
        self.intake.push(held, self.now);
    }

    /// The store says of every lane it was asked for that it is empty.
    fn store_has_no_more(&mut self) {
        let asked = |(index, lane): (usize, &LaneState)| {
            let priority = Priority::ALL[index % LANES];
            (lane.asked > 0).then_some(Lane { queue: index / LANES, priority })
        };
        let lanes: Vec<_> = self.intake.lanes.iter().enumerate().filter_map(asked).collect();
        self.intake.emptied(&lanes);
    }

    /// Jobs of one lane in the buffer, and nothing else anywhere.
    fn holds_only(&mut self, lane: Lane, names: &[&str]) {
        self.deliver(lane, names);
        for lane in &mut self.intake.lanes {
            lane.empty = true;
        }
    }

    fn pick(&mut self) -> Option<String> {
        self.intake.pick(self.now).map(|held| held.id().to_string())
    }

    /// All that can be picked now, each done at once in `took`.
    fn picks(&mut self, took: Duration) -> Vec<String> {
        let mut picked = Vec::new();
        while let Some(name) = self.pick() {
            self.intake.finished(took, self.now);
            picked.push(name);
        }
        picked
    }

    /// Queue, priority and count of each lane, and the most of these.
    fn demand(&mut self) -> Option<(Vec<LaneDemand>, usize)> {
        let demand = self.intake.new_demand(0, self.now)?;
        let lanes = demand.lanes.iter().map(|(lane, count)| (lane.queue, lane.priority.get(), *count)).collect();
        let most = demand.lanes.iter().map(|(_, count)| *count).max().unwrap_or(0);
        Some((lanes, most))
    }
}

#[test]
fn the_most_urgent_starts_first_and_queues_go_in_order() {
    let mut bench = Bench::new(&[None, None], 1);
    bench.holds_only(lane(1, 0), &["b0"]);
    bench.holds_only(lane(0, 3), &["a3", "a3second"]);
    bench.holds_only(lane(0, 1), &["a1"]);
    assert_eq!(bench.picks(Duration::ZERO), ["a1", "a3", "a3second", "b0"]);
}

#[test]
fn weights_share_the_picks() {
    let mut bench = Bench::new(&[Some(3), Some(1)], 40);
    let names: Vec<String> = (0..40).map(|n| format!("x{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bench.holds_only(lane(0, 2), &names);
    bench.holds_only(lane(1, 2), &names);
    let queue_of = |held: Arc<Held>| held.claim.lane.queue;
    let first: Vec<usize> = (0..40).map(|_| queue_of(bench.intake.pick(at(1)).unwrap())).collect();
    assert_eq!(first.iter().filter(|queue| **queue == 0).count(), 30);
    for window in first.windows(8) {
        let heavy = window.iter().filter(|queue| **queue == 0).count();
        assert!((5..=7).contains(&heavy), "the turns are spread: {first:?}");
    }
}

#[test]
fn a_queue_that_was_empty_does_not_claim_the_past() {
    let mut bench = Bench::new(&[Some(1), Some(1)], 70);
    let names: Vec<String> = (0..100).map(|n| format!("x{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bench.holds_only(lane(0, 2), &names);
    for _ in 0..50 {
        bench.pick().unwrap();
    }
    bench.holds_only(lane(1, 2), &names);
    let late = (0..20).filter(|_| bench.intake.pick(at(1)).unwrap().claim.lane.queue == 1).count();
    assert!((9..=11).contains(&late), "{late}");
}

#[test]
fn nothing_is_chosen_before_every_lane_has_answered() {
    let mut bench = Bench::new(&[None], 2);
    let (lanes, total) = bench.demand().unwrap();
    assert_eq!((lanes, total), (vec![(0, 0, 2), (0, 1, 2), (0, 2, 2), (0, 3, 2)], 2));
    bench.deliver(lane(0, 3), &["late"]);
    assert_eq!(bench.pick(), None);
    bench.deliver(lane(0, 0), &["urgent"]);
    bench.store_has_no_more();
    assert_eq!(bench.pick().as_deref(), Some("urgent"));
    assert_eq!(bench.pick().as_deref(), Some("late"));
}

#[test]
fn after_shrinking_nothing_starts_until_fewer_run_and_the_store_is_told_at_once() {
    let mut bench = Bench::new(&[None], 4);
    bench.demand().unwrap();
    bench.intake.resize(3);
    assert_eq!(bench.demand().unwrap().1, 3);
    assert_eq!(bench.demand(), None, "once is enough");

    let mut bench = Bench::new(&[None], 4);
    bench.holds_only(lane(0, 2), &["a", "b", "c", "d", "e", "f"]);
    for _ in 0..4 {
        bench.pick().unwrap();
    }
    bench.intake.sleeps();
    assert_eq!(bench.intake.resize(3), 0, "no slot is woken in vain");
    bench.intake.finished(Duration::ZERO, bench.now);
    assert_eq!(bench.pick(), None, "three run still");
    bench.intake.finished(Duration::ZERO, bench.now);
    assert_eq!(bench.pick().as_deref(), Some("e"));
    assert_eq!(bench.intake.resize(4), 1, "the one that sleeps");
    assert_eq!(bench.pick().as_deref(), Some("f"));
}

#[test]
fn a_missing_answer_holds_the_choice_only_for_a_while() {
    let mut bench = Bench::new(&[None], 2);
    bench.demand().unwrap();
    bench.deliver(lane(0, 3), &["a"]);
    assert_eq!(bench.pick(), None);
    bench.intake.sleeps();
    bench.now = bench.intake.next_wake(bench.now).unwrap();
    while bench.pick().is_none() {
        let next = bench.intake.next_wake(bench.now).unwrap();
        assert!(next > bench.now && next <= at(1).plus(ANSWER_WAIT), "it is known when to look again");
        bench.now = next;
    }
}

#[test]
fn a_lane_that_has_more_makes_less_urgent_ones_wait_for_its_refill() {
    let mut bench = Bench::new(&[None], 1);
    bench.demand().unwrap();
    bench.deliver(lane(0, 0), &["u"]);
    bench.deliver(lane(0, 3), &["low"]);
    bench.store_has_no_more();
    assert_eq!(bench.picks(Duration::from_millis(1)), ["u"], "low waits");
    assert!(bench.demand().unwrap().0.iter().any(|(_, priority, _)| *priority == 0), "it is asked again");
    bench.deliver(lane(0, 0), &["more"]);
    assert_eq!(bench.picks(Duration::from_millis(1)), ["more"]);
    bench.demand();
    bench.store_has_no_more();
    assert_eq!(bench.pick().as_deref(), Some("low"), "the store has no more urgent ones");
}

#[test]
fn a_lane_that_delivered_all_it_was_asked_for_is_asked_before_less_urgent_ones_start() {
    let mut bench = Bench::new(&[None, None], 1);
    bench.demand().unwrap();
    bench.deliver(lane(0, 1), &["a"]);
    bench.deliver(lane(1, 0), &["b"]);
    bench.store_has_no_more();
    assert_eq!(bench.pick().as_deref(), Some("a"));
    bench.demand();
    bench.intake.finished(Duration::from_millis(100), bench.now);
    assert_eq!(bench.pick(), None, "the first queue may have more");
    assert!(bench.intake.runs_low(), "the store is to be asked");
    let (lanes, _) = bench.demand().unwrap();
    assert!(lanes.contains(&(0, 1, 1)), "{lanes:?}");
    bench.store_has_no_more();
    assert_eq!(bench.pick().as_deref(), Some("b"));
}

#[test]
fn slow_jobs_are_claimed_one_for_one_and_fast_ones_ahead() {
    let mut bench = Bench::new(&[None], 2);
    assert_eq!(bench.demand().unwrap().1, 2);
    bench.store_has_no_more();
    bench.deliver(lane(0, 2), &["a", "b"]);
    assert!(bench.pick().is_some() && bench.pick().is_some());
    assert_eq!(bench.demand(), Some((vec![], 0)), "both slots have a job");
    bench.intake.finished(Duration::from_secs(1), bench.now);
    assert_eq!(bench.demand().unwrap().1, 1);

    let mut fast = Bench::new(&[None], 2);
    fast.demand().unwrap();
    fast.store_has_no_more();
    fast.deliver(lane(0, 2), &["a", "b"]);
    fast.picks(Duration::from_micros(10));
    assert_eq!(fast.demand().unwrap().1, 2048 + 2);
}

#[test]
fn a_full_buffer_does_not_hide_more_urgent_jobs() {
    let mut bench = Bench::new(&[None], 1);
    bench.intake.finished(Duration::from_millis(1), bench.now);
    let (_, total) = bench.demand().unwrap();
    let names: Vec<String> = (0..total).map(|n| format!("x{n}")).collect();
    bench.deliver(lane(0, 3), &names.iter().map(String::as_str).collect::<Vec<_>>());
    bench.store_has_no_more();
    bench.pick().unwrap();
    let demand = bench.intake.wanted(0, bench.now);
    let of = |priority: u8| demand.lanes.iter().find(|(lane, _)| lane.priority.get() == priority).map(|(_, n)| *n);
    assert_eq!(of(3), None, "its own lane is full: {demand:?}");
    assert!(of(0).is_some_and(|count| count >= 5), "{demand:?}");
}

#[test]
fn demand_falls_to_nothing_when_the_slots_stall() {
    let mut bench = Bench::new(&[None], 1);
    bench.intake.finished(Duration::from_micros(10), bench.now);
    assert!(bench.demand().unwrap().1 > 1000);
    bench.store_has_no_more();
    bench.deliver(lane(0, 2), &["long"]);
    bench.pick().unwrap();
    let wake = bench.intake.next_wake(bench.now).unwrap();
    assert!(wake <= bench.now.plus(crate::pace::AHEAD));
    bench.now = wake;
    assert_eq!(bench.demand(), Some((vec![], 0)));
}

#[test]
fn a_paused_queue_gives_back_what_is_buffered_and_asks_for_nothing() {
    let mut bench = Bench::new(&[None, None], 4);
    bench.demand().unwrap();
    bench.store_has_no_more();
    bench.deliver(lane(0, 2), &["a"]);
    bench.deliver(lane(1, 2), &["b"]);
    let back = bench.intake.pause(|queue| queue == 0);
    assert_eq!(back.len(), 1);
    let (lanes, _) = bench.demand().unwrap();
    assert!(lanes.iter().all(|(queue, ..)| *queue == 1), "{lanes:?}");
    bench.deliver(lane(0, 2), &["late"]);
    assert!(bench.intake.holds_paused());
    assert_eq!(bench.picks(Duration::from_secs(1)), ["b"], "what was on its way does not start");
    assert_eq!(bench.intake.pause(|queue| queue == 0).len(), 1);
    bench.intake.pause(|_| false);
    assert!(bench.demand().unwrap().0.iter().any(|(queue, ..)| *queue == 0));
}

#[test]
fn what_no_slot_takes_is_given_back() {
    let mut bench = Bench::new(&[None], 1);
    bench.holds_only(lane(0, 2), &["runs", "waits"]);
    bench.pick().unwrap();
    assert!(bench.intake.stale(bench.now).is_empty());
    bench.now = bench.now.plus(HAND_BACK_AFTER);
    assert_eq!(bench.intake.stale(bench.now).len(), 1, "no slot came free");

    let mut busy = Bench::new(&[None], 1);
    busy.holds_only(lane(0, 3), &["passed-over"]);
    busy.now = busy.now.plus(LEASE / 2);
    busy.intake.finished(Duration::from_millis(1), busy.now);
    assert_eq!(busy.intake.stale(busy.now).len(), 1, "half a lease is the limit however busy the slots are");
}

#[test]
fn suspects_run_alone() {
    let mut bench = Bench::new(&[None], 3);
    bench.holds_only(lane(0, 2), &["s1", "s2", "plain"]);
    let first = bench.intake.pick(bench.now).unwrap();
    assert!(bench.intake.enter_alone(&first));
    let second = bench.intake.pick(bench.now).unwrap();
    assert!(!bench.intake.enter_alone(&second));
    bench.intake.finished(Duration::from_millis(1), bench.now);
    assert_eq!(bench.pick().as_deref(), Some("plain"), "others go on");
    assert_eq!(bench.pick(), None);
    bench.intake.leave_alone();
    assert_eq!(bench.pick().as_deref(), Some("s2"));
}
