//! [`Agenda`]: the leader's picture of all schedules, and which of them to look at when.
//!
//! Invariant: pure bookkeeping; work per call does not grow with what is not due. A schedule is worked on once at a time.
//! The picture may lag behind the store: whoever acts on it does so by compare-and-set.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use naq_models::{JobId, ScheduleStatus, Timestamp};
use naq_services::{scheduler::StoredSchedule, storage::KvChange};

/// A schedule that could not be moved on is tried again after pauses between these.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What came of working on a schedule.
#[derive(Debug)]
pub(super) enum Turn {
    /// This is how it stands.
    Stands(Box<StoredSchedule>),
    /// It stands otherwise than was thought, or the store failed: the watch tells how.
    Lost,
}

#[derive(Debug)]
struct Known {
    stored: StoredSchedule,
    /// It is being worked on.
    busy: bool,
    /// Not before this, after a failure, and how long the next pause is.
    pause: Option<(Timestamp, Duration)>,
    /// Where it stands in the agenda.
    at: Option<Timestamp>,
    /// The run it waits for stands in the queue of waits, or is being waited for.
    waits: bool,
    /// The newest result seen of a run.
    seen: Option<(JobId, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Agenda {
    known: HashMap<String, Known>,
    agenda: BTreeSet<(Timestamp, String)>,
    to_await: VecDeque<String>,
    /// Since the watch began anew: what it has not reported yet.
    unreported: Option<HashSet<String>>,
}

impl Agenda {
    /// Takes in one change of the store.
    pub(super) fn note(&mut self, change: KvChange) {
        match change {
            KvChange::Restart => self.unreported = Some(self.known.keys().cloned().collect()),
            KvChange::Put(entry) => {
                let loading = self.unreported.as_mut().map(|unreported| unreported.remove(&entry.key)).is_some();
                match StoredSchedule::read(&entry) {
                    Ok(stored) => self.put(entry.key, stored, loading),
                    Err(error) => {
                        tracing::error!(schedule = entry.key, %error, "a schedule cannot be read and does not fire");
                        self.forget(&entry.key);
                    }
                }
            }
            KvChange::Gone(key) => self.forget(&key),
            KvChange::Current => {
                for key in self.unreported.take().unwrap_or_default() {
                    self.forget(&key);
                }
            }
        }
    }

    /// The most urgent schedule that is to be worked on at `now`.
    pub(super) fn take_due(&mut self, now: Timestamp) -> Option<(String, StoredSchedule)> {
        if self.agenda.first()?.0 > now {
            return None;
        }
        let (_, key) = self.agenda.pop_first()?;
        let known = self.known.get_mut(&key)?;
        (known.at, known.busy) = (None, true);
        Some((key, known.stored.clone()))
    }

    /// A run to wait for, and the newest revision of its result that was seen.
    pub(super) fn take_awaited(&mut self) -> Option<(String, JobId, u64)> {
        while let Some(key) = self.to_await.pop_front() {
            let Some(known) = self.known.get_mut(&key) else { continue };
            let Some(run) = known.stored.record.awaits().cloned() else {
                known.waits = false;
                continue;
            };
            let seen = known.seen.as_ref().filter(|(of, _)| *of == run).map_or(0, |(_, revision)| *revision);
            return Some((key, run, seen));
        }
        None
    }

    /// When the next schedule is to be worked on.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.agenda.first().map(|(at, _)| *at)
    }

    /// A schedule was worked on.
    pub(super) fn finished(&mut self, key: &str, turn: Turn, now: Timestamp) {
        let Some(known) = self.known.get_mut(key) else { return };
        known.busy = false;
        match turn {
            Turn::Stands(stored) if stored.revision > known.stored.revision => {
                known.stored = *stored;
                known.pause = None;
            }
            // The watch was faster.
            Turn::Stands(stored) if stored.revision < known.stored.revision => known.pause = None,
            // Its run goes on.
            Turn::Stands(stored) if stored.record.awaits().is_some() => known.pause = None,
            Turn::Stands(_) | Turn::Lost => {
                let pause = known.pause.map_or(PAUSE_MIN, |(_, pause)| (pause * 2).min(PAUSE_MAX));
                known.pause = Some((now.saturating_add(pause), pause));
            }
        }
        self.place(key);
    }

    /// A run was waited for: it ended, or it took long. Either way it is looked at.
    pub(super) fn awaited(&mut self, key: &str, run: JobId, seen: u64) {
        let Some(known) = self.known.get_mut(key) else { return };
        known.waits = false;
        let current = known.stored.record.awaits() == Some(&run);
        known.seen = Some((run, seen));
        if current && !known.busy {
            self.place_at(key, Timestamp::EPOCH);
        } else {
            self.place(key);
        }
    }

    fn put(&mut self, key: String, stored: StoredSchedule, loading: bool) {
        match self.known.get_mut(&key) {
            // What this leader has written comes back through the watch.
            Some(known) if !loading && stored.revision <= known.stored.revision => return,
            Some(known) => {
                if stored.revision != known.stored.revision {
                    known.pause = None;
                }
                known.stored = stored;
            }
            None => {
                let known = Known { stored, busy: false, pause: None, at: None, waits: false, seen: None };
                self.known.insert(key.clone(), known);
            }
        }
        self.place(&key);
    }

    fn forget(&mut self, key: &str) {
        if let Some(Known { at: Some(at), .. }) = self.known.remove(key) {
            self.agenda.remove(&(at, key.to_owned()));
        }
    }

    /// Puts a schedule where it belongs by its record.
    fn place(&mut self, key: &str) {
        let Some(known) = self.known.get_mut(key) else { return };
        let record = &known.stored.record;
        let awaits = record.pending.is_empty() && record.awaits().is_some();
        if awaits && !known.waits && !known.busy {
            known.waits = true;
            self.to_await.push_back(key.to_owned());
        }
        let at = if !record.pending.is_empty() {
            Some(Timestamp::EPOCH)
        } else if record.status != ScheduleStatus::Active || awaits {
            None
        } else if record.next.is_none() {
            // One that follows its runs and has had none.
            Some(Timestamp::EPOCH)
        } else {
            record.next
        };
        match at {
            Some(at) => self.place_at(key, at),
            None => self.unplace(key),
        }
    }

    fn place_at(&mut self, key: &str, at: Timestamp) {
        self.unplace(key);
        let Some(known) = self.known.get_mut(key).filter(|known| !known.busy) else { return };
        let at = known.pause.map_or(at, |(until, _)| until.max(at));
        known.at = Some(at);
        self.agenda.insert((at, key.to_owned()));
    }

    fn unplace(&mut self, key: &str) {
        if let Some(at) = self.known.get_mut(key).and_then(|known| known.at.take()) {
            self.agenda.remove(&(at, key.to_owned()));
        }
    }
}
