//! [`Timing`]: the rule that says when a schedule is due.
//!
//! Invariant: due times of `Every` are the anchor plus whole periods, however late anything ran, so they do not drift.
//! A valid timing always moves forward: no period is shorter than [`MIN_PERIOD`](super::MIN_PERIOD).

use std::time::Duration;

use super::{Cron, Zone};
use crate::Timestamp;

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timing {
    /// By the wall clock of a time zone.
    Cron(Cron),
    /// At a fixed rate: an anchor plus whole periods. The anchor is the start of the schedule, or the time at which it
    /// was created or its timing last changed.
    Every(Duration),
    /// A fixed delay after the last run has ended.
    After(Duration),
}

impl Timing {
    /// The first due moment after `t`; for [`Timing::After`], when the run after one that ended at `t` is due. `None`
    /// if there is none within a hundred years or before the year 10000.
    #[must_use]
    pub fn next_after(&self, anchor: Timestamp, t: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.next_after(t),
            Self::Every(period) => {
                let (anchor, t) = (anchor.unix_millis(), t.unix_millis());
                if t < anchor {
                    return Timestamp::from_unix_millis(anchor);
                }
                let period = i64::try_from(period.as_millis()).ok().filter(|p| *p > 0)?;
                let periods = (t - anchor) / period + 1;
                Timestamp::from_unix_millis(periods.checked_mul(period)?.checked_add(anchor)?)
            }
            Self::After(delay) => {
                let millis = i64::try_from(delay.as_millis()).ok()?;
                Timestamp::from_unix_millis(t.unix_millis().checked_add(millis)?)
            }
        }
    }

    /// The zone whose clock people read its due times by: UTC unless it is a cron expression with another.
    #[must_use]
    pub fn zone(&self) -> Zone {
        if let Self::Cron(cron) = self { cron.zone() } else { Zone::UTC }
    }

    /// Whether the next due moment depends on the end of the last run.
    #[must_use]
    pub fn follows_completion(&self) -> bool {
        matches!(self, Self::After(_))
    }
}
