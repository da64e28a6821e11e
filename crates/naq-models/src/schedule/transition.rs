//! How a [`ScheduleRecord`] becomes the next: due, published, paused, resumed, triggered, changed, cancelled.
//!
//! Invariant: each transition is total and pure; a fire enters `pending` in the same record in which `next` moves past
//! it, so whoever wins the compare-and-set owns it and whoever comes later can finish it. Work per call is bounded,
//! however long the outage. Whether the last run lives is an argument: nothing here looks anything up.

mod late;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use super::{MAX_PENDING, Missed, Overlap, ScheduleDefinition, ScheduleRecord, ScheduleStatus, Timing};
use crate::{ScheduleId, Timestamp};

/// What is known of the run that [`ScheduleRecord::last_run_id`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastRun {
    /// There was none, or nothing of it is left.
    Unknown,
    /// It has not ended: scheduled, waiting, pending, running or in retry.
    Live,
    /// It ended at this time, however.
    Ended(Timestamp),
}

/// A record that has moved on, and what to publish.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Advance {
    /// The record to store by compare-and-set before anything is published. Equal to the old one if nothing was due.
    pub record: ScheduleRecord,
    /// The due times that this advance added to `pending`, in order.
    pub fires: Vec<Timestamp>,
}

/// What [`ScheduleRecord::upsert`] found and made of it.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Upsert {
    /// There was none, or a cancelled one: the schedule starts anew.
    Created(ScheduleRecord),
    /// The definition has changed.
    Updated(ScheduleRecord),
    /// The same definition: nothing to store.
    Unchanged,
}

/// Something a person can do to a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// [`ScheduleRecord::pause`].
    Pause,
    /// [`ScheduleRecord::resume`].
    Resume,
    /// [`ScheduleRecord::trigger`].
    Trigger,
    /// [`ScheduleRecord::modify`].
    Modify,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Trigger => "triggered",
            Self::Modify => "modified",
        })
    }
}

/// Why an action was refused; the record stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A schedule that has ended cannot be paused or resumed; a cancelled one can only be defined again.
    #[error("a {status} schedule cannot be {action}")]
    Status {
        /// What was asked.
        action: Action,
        /// Where the schedule stands.
        status: ScheduleStatus,
    },
    /// [`MAX_PENDING`] fires wait for being published.
    #[error("{MAX_PENDING} runs wait for being published already")]
    Backlog,
}

impl ScheduleRecord {
    /// A schedule defined at `now`.
    #[must_use]
    pub fn new(id: ScheduleId, definition: ScheduleDefinition, now: Timestamp) -> Self {
        let mut record = Self {
            id,
            definition,
            status: ScheduleStatus::Active,
            created_at: now,
            updated_at: now,
            anchor: now,
            next: None,
            pending: Vec::new(),
            runs: 0,
            skipped: 0,
            last_due: None,
            last_run_id: None,
            extra: std::collections::BTreeMap::new(),
        };
        record.start_from(now);
        record
    }

    /// Fires what is due at `now`.
    ///
    /// A due time late by at most `tolerance` is on time and always fires; what is later is *missed* and falls under
    /// [`Missed`]. A leader passes [`TOLERANCE`](super::TOLERANCE) in its stride and when it takes over from one that
    /// died; after a time when nothing was up it may pass less. With [`Overlap::Skip`], nothing fires while the last
    /// run lives (or waits in `pending`), and of several due times the newest does. At most
    /// [`MAX_CATCH_UP`](super::MAX_CATCH_UP) due times fire at once, the newest; none while `pending` is full.
    pub fn advance(&self, now: Timestamp, last_run: LastRun, tolerance: Duration) -> Advance {
        let mut record = self.clone();
        if self.status != ScheduleStatus::Active || self.pending.len() >= MAX_PENDING {
            return Advance { record, fires: Vec::new() };
        }
        let unpublished = self.pending.iter().any(|due| self.last_run_id == Some(self.id.run_id(*due)));
        let last_run = if unpublished { LastRun::Live } else { last_run };
        let fires = match self.definition.timing {
            Timing::After(_) => record.follow(now, last_run, tolerance),
            Timing::Cron(_) | Timing::Every(_) => record.tick(now, last_run == LastRun::Live, tolerance),
        };
        Advance { record, fires }
    }

    /// Fires by the clock.
    fn tick(&mut self, now: Timestamp, live: bool, tolerance: Duration) -> Vec<Timestamp> {
        let late = self.late(now);
        let on_time = now.saturating_sub(tolerance);
        let mut fires: Vec<Timestamp> = late.newest.into();
        let missed = fires.partition_point(|due| *due < on_time);
        match self.definition.missed {
            Missed::Skip => drop(fires.drain(..missed)),
            Missed::Once => drop(fires.drain(..missed.saturating_sub(1))),
            Missed::All => {}
        }
        if self.definition.overlap == Overlap::Skip {
            let kept = if live { 0 } else { 1 };
            fires.drain(..fires.len().saturating_sub(kept));
        }
        if let Some(left) = self.runs_left() {
            fires.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        fires.drain(..fires.len().saturating_sub(MAX_PENDING - self.pending.len()));
        self.skipped = self.skipped.saturating_add(late.count.saturating_sub(fires.len() as u64));
        for due in &fires {
            self.record_fire(*due);
        }
        self.runs = self.runs.saturating_add(fires.len() as u64);
        self.move_to(late.next);
        fires
    }

    /// Fires by the end of the last run.
    fn follow(&mut self, now: Timestamp, last_run: LastRun, tolerance: Duration) -> Vec<Timestamp> {
        if last_run == LastRun::Live {
            // Also when a run triggered by hand came between: the schedule waits for its end instead.
            self.next = None;
            return Vec::new();
        }
        if self.next.is_none() {
            let ended = match last_run {
                LastRun::Ended(at) => Some(at),
                // Nothing is left of it: it ended after it was due, nobody knows when.
                LastRun::Live | LastRun::Unknown => self.last_due,
            };
            self.next = match ended {
                // What passed while the schedule was paused is not made up for.
                Some(at) => self.next_after(at).map(|due| due.max(self.updated_at)),
                None => Some(now),
            };
        }
        // A run that was triggered by hand may be due later than the one that waits: no two have one id.
        let later = self.last_due.map(|last| last.saturating_add(Duration::from_millis(1)));
        let due = match self.within_end(self.next.max(later.filter(|_| self.next.is_some()))) {
            Some(due) if due <= now => due,
            future => {
                self.move_to(future);
                return Vec::new();
            }
        };
        if self.definition.missed == Missed::Skip && due < now.saturating_sub(tolerance) {
            self.skipped = self.skipped.saturating_add(1);
            self.move_to(self.within_end(self.next_after(now)));
            return Vec::new();
        }
        self.record_fire(due);
        self.runs = self.runs.saturating_add(1);
        self.next = None;
        if self.runs_left() == Some(0) {
            self.status = ScheduleStatus::Completed;
        }
        vec![due]
    }

    fn record_fire(&mut self, due: Timestamp) {
        let place = self.pending.partition_point(|waiting| *waiting < due);
        self.pending.insert(place, due);
        // A trigger just before may have a later one: `last_due` never goes back, or its run's id would be given again.
        self.last_due = self.last_due.max(Some(due));
        self.last_run_id = Some(self.id.run_id(due));
    }

    /// The record without fires whose jobs have been published, or refused for good.
    #[must_use]
    pub fn published(&self, due: &[Timestamp]) -> Self {
        let mut record = self.clone();
        record.pending.retain(|waiting| !due.contains(waiting));
        record
    }

    /// Holds the schedule. What is pending is still published. A paused one stays as it is.
    ///
    /// # Errors
    /// If it has completed or is cancelled.
    pub fn pause(&self, now: Timestamp) -> Result<Self, Refused> {
        let mut record = self.clone();
        match self.status {
            ScheduleStatus::Paused => {}
            ScheduleStatus::Active => {
                record.status = ScheduleStatus::Paused;
                record.next = None;
                record.updated_at = now;
            }
            status => return Err(Refused::Status { action: Action::Pause, status }),
        }
        Ok(record)
    }

    /// Lets a paused schedule go on. What was due meanwhile is not made up for, under any policy; the rhythm of
    /// `every` stays. An active one stays as it is.
    ///
    /// # Errors
    /// If it has completed or is cancelled.
    pub fn resume(&self, now: Timestamp) -> Result<Self, Refused> {
        let mut record = self.clone();
        match self.status {
            ScheduleStatus::Active => {}
            ScheduleStatus::Paused => {
                record.status = ScheduleStatus::Active;
                record.updated_at = now;
                record.start_from(now);
            }
            status => return Err(Refused::Status { action: Action::Resume, status }),
        }
        Ok(record)
    }

    /// One extra run now: not counted in `runs`, and `next` stays. From here on it is the last run, so `Overlap::Skip`
    /// and `after_completion` look at it. Its due time is `now`, moved by milliseconds if that one is taken. A paused
    /// or completed schedule can be triggered too.
    ///
    /// # Errors
    /// If it is cancelled, or [`MAX_PENDING`] fires wait for being published.
    pub fn trigger(&self, now: Timestamp) -> Result<Advance, Refused> {
        if self.status == ScheduleStatus::Cancelled {
            return Err(Refused::Status { action: Action::Trigger, status: self.status });
        }
        if self.pending.len() >= MAX_PENDING {
            return Err(Refused::Backlog);
        }
        // Also a due time of the timing that has not been looked at yet: two runs cannot have one id.
        let regular = |due: Timestamp| {
            !self.definition.timing.follows_completion()
                && self.next_after(due.saturating_sub(Duration::from_millis(1))) == Some(due)
        };
        // Not only another one than the last: of three within a millisecond the third must not be the first again.
        let mut due = self.last_due.map_or(now, |last| now.max(last.saturating_add(Duration::from_millis(1))));
        while self.next == Some(due) || regular(due) {
            due = due.saturating_add(Duration::from_millis(1));
        }
        let mut record = self.clone();
        record.record_fire(due);
        Ok(Advance { record, fires: vec![due] })
    }

    /// Gives the schedule another definition. The same one changes nothing. A changed timing or start counts from
    /// `now`; `runs` goes on. A paused schedule stays paused; a completed one goes on if the new definition has runs
    /// left for it.
    ///
    /// # Errors
    /// If it is cancelled: [`ScheduleRecord::upsert`] starts it anew.
    pub fn modify(&self, definition: ScheduleDefinition, now: Timestamp) -> Result<Self, Refused> {
        if self.status == ScheduleStatus::Cancelled {
            return Err(Refused::Status { action: Action::Modify, status: self.status });
        }
        let mut record = self.clone();
        if self.definition.same_as(&definition) {
            return Ok(record);
        }
        let retimed = self.definition.timing != definition.timing || self.definition.start != definition.start;
        record.definition = definition;
        record.updated_at = now;
        if retimed {
            record.anchor = now;
        }
        match self.status {
            ScheduleStatus::Completed => {
                record.status = ScheduleStatus::Active;
                record.start_from(now);
            }
            ScheduleStatus::Active if retimed => record.start_from(now),
            ScheduleStatus::Active => record.go_on(record.next),
            ScheduleStatus::Paused | ScheduleStatus::Cancelled => {}
        }
        Ok(record)
    }

    /// Defines a schedule, whether it exists or not. With the same definition nothing changes, whatever its status but
    /// cancelled, so every deploy can repeat it; a cancelled one starts anew with no runs.
    pub fn upsert(existing: Option<&Self>, id: ScheduleId, definition: ScheduleDefinition, now: Timestamp) -> Upsert {
        match existing {
            Some(record) if record.definition.same_as(&definition) && record.status != ScheduleStatus::Cancelled => {
                Upsert::Unchanged
            }
            Some(record) => match record.modify(definition.clone(), now) {
                Ok(record) => Upsert::Updated(record),
                Err(_cancelled) => Upsert::Created(Self::new(id, definition, now)),
            },
            None => Upsert::Created(Self::new(id, definition, now)),
        }
    }

    /// Ends the schedule. Fires that are still pending are dropped; runs that were published go on. A cancelled one
    /// stays as it is.
    #[must_use]
    pub fn cancel(&self, now: Timestamp) -> Self {
        let mut record = self.clone();
        if self.status != ScheduleStatus::Cancelled {
            record.status = ScheduleStatus::Cancelled;
            record.next = None;
            record.pending.clear();
            record.updated_at = now;
        }
        record
    }

    /// The next due times, at most `n`, if all goes by plan. None unless it is active; of an `after_completion`
    /// schedule at most the first, since the others follow from runs that have not ended.
    #[must_use]
    pub fn upcoming(&self, n: usize) -> Vec<Timestamp> {
        if self.status != ScheduleStatus::Active {
            return Vec::new();
        }
        let n = n.min(self.runs_left().map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX)));
        std::iter::successors(self.next, |due| {
            if self.definition.timing.follows_completion() { None } else { self.within_end(self.next_after(*due)) }
        })
        .take(n)
        .collect()
    }

    /// Sets `next` for a schedule that starts or goes on at `now`.
    fn start_from(&mut self, now: Timestamp) {
        let start = self.definition.start.unwrap_or(now).max(now);
        let next = match self.definition.timing {
            Timing::After(_) if self.last_run_id.is_some() => None,
            Timing::After(_) => Some(start),
            // A due time at `now` itself has passed; one at a later start has not.
            Timing::Cron(_) | Timing::Every(_) if start > now => {
                self.next_after(start.saturating_sub(Duration::from_millis(1)))
            }
            Timing::Cron(_) | Timing::Every(_) => self.next_after(now),
        };
        self.go_on(next);
    }

    /// Sets `next` to `due`, or to nothing where the end of the last run decides.
    fn go_on(&mut self, due: Option<Timestamp>) {
        let follows = self.definition.timing.follows_completion() && self.last_run_id.is_some();
        if due.is_none() && follows && self.runs_left() != Some(0) {
            self.next = None;
        } else {
            self.move_to(self.within_end(due));
        }
    }

    /// Sets `next`; without one, or without runs left, the schedule has completed.
    fn move_to(&mut self, next: Option<Timestamp>) {
        self.next = next.filter(|_| self.runs_left() != Some(0));
        if self.next.is_none() {
            self.status = ScheduleStatus::Completed;
        }
    }

    fn next_after(&self, t: Timestamp) -> Option<Timestamp> {
        self.definition.timing.next_after(self.definition.start.unwrap_or(self.anchor), t)
    }

    fn within_end(&self, due: Option<Timestamp>) -> Option<Timestamp> {
        due.filter(|due| self.definition.end.is_none_or(|end| *due <= end))
    }
}
