//! Which due times of a schedule have come.
//!
//! Invariant: walks at most [`MAX_COUNTED`] due times forward, and then only looks back from `now`, so that years of
//! outage of a schedule by the second cost no more than an hour of it.

use std::{collections::VecDeque, time::Duration};

use crate::{
    Timestamp,
    schedule::{MAX_CATCH_UP, Missed, Overlap, ScheduleRecord},
};

/// How many due times are counted one by one in one advance.
pub(super) const MAX_COUNTED: u64 = 10_000;

/// The due times from `next` to a moment.
pub(super) struct Late {
    /// The newest of them, at most [`MAX_CATCH_UP`], in order.
    pub(super) newest: VecDeque<Timestamp>,
    /// How many there are, counted up to [`MAX_COUNTED`].
    pub(super) count: u64,
    /// The first that has not come; `None` if there is none any more.
    pub(super) next: Option<Timestamp>,
}

impl ScheduleRecord {
    pub(super) fn late(&self, now: Timestamp) -> Late {
        // If each of them runs, those after the last run of `repeat` are none.
        let each_runs = self.definition.missed == Missed::All && self.definition.overlap == Overlap::Allow;
        let most = self.runs_left().filter(|_| each_runs).unwrap_or(u64::MAX);
        let mut late = Late { newest: VecDeque::new(), count: 0, next: self.within_end(self.next) };
        while let Some(due) = late.next.filter(|due| *due <= now && late.count < most) {
            if late.count == MAX_COUNTED {
                late.newest = self.newest(due, now);
                late.next = self.within_end(self.next_after(now));
                break;
            }
            keep(&mut late.newest, due);
            late.count += 1;
            late.next = self.within_end(self.next_after(due));
        }
        late
    }

    /// The newest due times from `first` to `now`, found by looking back further and further.
    fn newest(&self, first: Timestamp, now: Timestamp) -> VecDeque<Timestamp> {
        let last = self.definition.end.map_or(now, |end| end.min(now));
        let mut span = Duration::from_secs(MAX_CATCH_UP as u64);
        loop {
            let from = last.saturating_sub(span).max(first.saturating_sub(Duration::from_millis(1)));
            let mut newest = VecDeque::new();
            let mut due = self.next_after(from);
            while let Some(this) = due.filter(|due| *due <= last) {
                keep(&mut newest, this);
                due = self.next_after(this);
            }
            if newest.len() >= MAX_CATCH_UP || from < first {
                return newest;
            }
            span = span.saturating_mul(4);
        }
    }
}

fn keep(newest: &mut VecDeque<Timestamp>, due: Timestamp) {
    if newest.len() == MAX_CATCH_UP {
        newest.pop_front();
    }
    newest.push_back(due);
}
