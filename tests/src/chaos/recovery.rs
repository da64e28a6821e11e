//! How soon work went on after each kind of fault.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    time::Duration,
};

use crate::faults::{Event, Line};

/// By the name of the fault: from its end to the next effect of any job, one time for each fault.
#[derive(Debug, Default)]
pub struct Recovery(BTreeMap<String, Vec<Duration>>);

impl Recovery {
    /// Of a history, in the order of its times.
    pub fn of(lines: &[Line]) -> Recovery {
        let mut names = BTreeMap::new();
        let mut recovery = Recovery::default();
        // Faults that have ended, and after which nothing was done yet.
        let mut open: Vec<(&String, Duration)> = Vec::new();
        for Line { at, event, .. } in lines {
            match event {
                Event::Fault { fault, name, .. } => drop(names.insert(fault, name)),
                Event::Healed { fault } => open.extend(names.get(fault).map(|name| (*name, *at))),
                Event::Effect { .. } => {
                    for (name, healed) in open.drain(..) {
                        recovery.0.entry(name.clone()).or_default().push(*at - healed);
                    }
                }
                _ => {}
            }
        }
        for times in recovery.0.values_mut() {
            times.sort_unstable();
        }
        recovery
    }
}

impl Display for Recovery {
    /// A table: how many, and the middle and the longest time in seconds.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{:<64}{:>6}{:>10}{:>10}", "fault; seconds until work went on", "count", "median", "longest")?;
        for (name, times) in &self.0 {
            let seconds = |place: usize| times.get(place).map_or(0.0, Duration::as_secs_f64);
            let (median, longest) = (seconds(times.len() / 2), seconds(times.len() - 1));
            writeln!(out, "{name:<64}{:>6}{median:>10.2}{longest:>10.2}", times.len())?;
        }
        Ok(())
    }
}
