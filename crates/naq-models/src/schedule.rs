//! Recurring jobs: what a user writes ([`Schedule`]), what is stored ([`ScheduleRecord`]) and how one becomes the next.
//!
//! Invariant: every transition is a pure function from a record and the time to the next record. A fire is recorded in
//! `pending` together with the advance of `next`, so that one compare-and-set decides it and whoever reads the record
//! afterwards can publish it; the id of a run is made of the schedule and the due time, so that publishing twice
//! stores once. Nothing here reads a clock or a store, or knows who the leader is.

pub mod cron;
mod definition;
mod object;
mod record;
mod status;
mod template;
mod timing;
mod transition;

pub use cron::{Cron, CronError, CronField, FieldProblem, Zone, ZoneError};
pub use definition::{Missed, Overlap, Schedule, ScheduleDefinition, ScheduleError};
pub use record::ScheduleRecord;
pub use status::{ScheduleStatus, ScheduleStatusError};
pub use template::JobTemplate;
pub use timing::Timing;
pub use transition::{Action, Advance, LastRun, Refused, Upsert};

use std::time::Duration;

/// A due run that is late by at most this is not a missed one: time for another leader to take over from one that
/// died (lock TTL 10 s), and then some. What is later falls under [`Missed`].
pub const TOLERANCE: Duration = Duration::from_secs(15);

/// The most runs that [`Missed::All`] makes up for after one outage; the newest are kept.
pub const MAX_CATCH_UP: usize = 1_000;

/// The most recorded fires that may wait for being published; a schedule that has so many does not advance.
pub const MAX_PENDING: usize = 1_000;

/// The shortest period of `every` and pause of `after_completion`.
pub const MIN_PERIOD: Duration = Duration::from_millis(100);

/// The shortest time that the result of a run is kept if its schedule looks at its last run.
pub const MIN_RESULT_TTL: Duration = Duration::from_secs(3600);
