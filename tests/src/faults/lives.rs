//! Who lived when, and under which faults.

use std::{collections::BTreeMap, time::Duration};

use super::history::{Event, Line, Scope};

/// A time from the first to the second.
pub(super) type Span = (Duration, Duration);

/// Faults and deaths of one history.
#[derive(Debug, Default)]
pub(super) struct Lives {
    faults: BTreeMap<u32, Fault>,
    /// Of a process; several, as the system gives numbers again.
    deaths: BTreeMap<u32, Vec<Duration>>,
    /// Of the last line.
    pub(super) end: Duration,
}

#[derive(Debug)]
struct Fault {
    scope: Scope,
    from: Duration,
    healed: Option<Duration>,
}

impl Fault {
    /// Whether it was there at some moment of this time.
    fn meets(&self, (from, until): Span) -> bool {
        self.from <= until && self.healed.is_none_or(|healed| healed >= from)
    }
}

impl Lives {
    pub(super) fn of(lines: &[Line]) -> Lives {
        let mut lives = Lives { end: lines.last().map_or(Duration::ZERO, |line| line.at), ..Lives::default() };
        for Line { at, event, .. } in lines {
            match event {
                Event::Fault { fault, scope, .. } => {
                    lives.faults.insert(*fault, Fault { scope: *scope, from: *at, healed: None });
                }
                Event::Healed { fault } => {
                    if let Some(fault) = lives.faults.get_mut(fault) {
                        fault.healed = Some(*at);
                    }
                }
                Event::Died { process } => lives.deaths.entry(*process).or_default().push(*at),
                _ => {}
            }
        }
        lives
    }

    pub(super) fn faults(&self) -> usize {
        self.faults.len()
    }

    /// When a process that lived at this time died.
    pub(super) fn death(&self, process: u32, after: Duration) -> Option<Duration> {
        self.deaths.get(&process)?.iter().copied().find(|&death| death >= after)
    }

    /// Whether a process suffered something within this time, alone or with everybody; its death counts.
    pub(super) fn suffered(&self, process: u32, (from, until): Span) -> bool {
        let fault = self.faults.values().any(|fault| {
            let met = match fault.scope {
                Scope::Frozen(one) | Scope::Process(one) => one == process,
                Scope::Everybody | Scope::Store => true,
                Scope::Nobody => false,
            };
            met && fault.meets((from, until))
        });
        fault || self.death(process, from).is_some_and(|death| death <= until)
    }

    /// Whether the store may have forgotten something within this time.
    pub(super) fn forgot(&self, span: Span) -> bool {
        self.faults.values().any(|fault| fault.scope == Scope::Store && fault.meets(span))
    }

    /// How much of a time none of these processes was stopped.
    pub(super) fn awake(&self, processes: [u32; 2], (from, until): Span) -> Duration {
        let mut frozen: Vec<Span> = self
            .faults
            .values()
            .filter(|fault| matches!(fault.scope, Scope::Frozen(one) if processes.contains(&one)))
            .map(|fault| (fault.from.max(from), fault.healed.unwrap_or(self.end).min(until)))
            .filter(|(from, until)| from < until)
            .collect();
        frozen.sort_unstable();
        let (mut awake, mut reached) = (Duration::ZERO, from);
        for (begin, end) in frozen {
            awake += begin.saturating_sub(reached);
            reached = reached.max(end);
        }
        awake + until.saturating_sub(reached)
    }
}
