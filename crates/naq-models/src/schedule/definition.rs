//! [`Schedule`], as a user writes it, and [`ScheduleDefinition`], checked and joined with the job it makes.
//!
//! Invariant: a definition holds a valid timing and no empty range of time; everything that can be wrong with what a
//! user wrote comes out of [`Schedule::build`] as one typed error, never as a panic.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

use super::{Cron, CronError, JobTemplate, MIN_PERIOD, Timing, Zone, ZoneError, object::Object};
use crate::{Job, RawJson, Timestamp, duration, duration::Seconds};

/// What happens to due runs that nobody was there to start, late by more than [`TOLERANCE`](super::TOLERANCE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// They do not run.
    Skip,
    /// One run makes up for all of them, under the due time of the latest.
    #[default]
    Once,
    /// Each runs, up to the newest [`MAX_CATCH_UP`](super::MAX_CATCH_UP).
    All,
}

/// What happens when a run is due while the one before has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// It runs beside it.
    #[default]
    Allow,
    /// It does not run. Of several that are due at once, the newest runs.
    Skip,
}

macro_rules! words {
    ($type:ident, $error:literal, $($word:literal => $variant:ident),+) => {
        impl $type {
            /// Every word, in lower case.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
        }

        impl std::str::FromStr for $type {
            type Err = ScheduleError;
            fn from_str(text: &str) -> Result<Self, ScheduleError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(ScheduleError::Word { text: text.chars().take(64).collect(), allowed: $error }),
                }
            }
        }
    };
}

words!(Missed, "skip, once or all", "skip" => Skip, "once" => Once, "all" => All);
words!(Overlap, "allow or skip", "allow" => Allow, "skip" => Skip);

/// Why a schedule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The cron expression cannot be read.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// The time zone does not exist.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// A period or delay out of bounds.
    #[error("{what} must be between {} and 100 years, not {}", duration::format(MIN_PERIOD), duration::format(*.found))]
    Period {
        /// `every` or `after`.
        what: &'static str,
        /// The refused duration.
        found: Duration,
    },
    /// A time zone for a timing that follows no wall clock.
    #[error("a time zone belongs to a cron expression; a period is the same everywhere")]
    ZoneWithoutCron,
    /// `repeat` is zero.
    #[error("repeat must be at least 1; leave it out for a schedule without end")]
    Repeat,
    /// `end` is before `start`.
    #[error("the end {end} is before the start {start}")]
    Range {
        /// When it was to start.
        start: Timestamp,
        /// When it was to end.
        end: Timestamp,
    },
    /// The job has `depends_on`.
    #[error("a recurring job cannot depend on other jobs")]
    DependsOn,
    /// A policy that does not exist.
    #[error("{text:?} is not known; write {allowed}")]
    Word {
        /// The refused text.
        text: String,
        /// What may stand there.
        allowed: &'static str,
    },
}

/// A timing as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Draft {
    Cron(String),
    Every(Duration),
    After(Duration),
}

/// When and how often a job recurs, as a user writes it. Nothing is checked before [`Schedule::build`].
///
/// ```
/// use naq_models::schedule::{Missed, Schedule};
/// let nightly = Schedule::cron("0 3 * * *").tz("Europe/Berlin").missed(Missed::Skip);
/// assert!(nightly.timing().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Schedule {
    draft: Draft,
    zone: Option<String>,
    repeat: Option<u64>,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    missed: Missed,
    overlap: Overlap,
}

impl Schedule {
    fn of(draft: Draft) -> Self {
        Self {
            draft,
            zone: None,
            repeat: None,
            start: None,
            end: None,
            missed: Missed::default(),
            overlap: Overlap::default(),
        }
    }

    /// By a cron expression of five or six fields, in UTC unless [`Schedule::tz`] says otherwise. See [`Cron::new`].
    pub fn cron(expression: impl Into<String>) -> Self {
        Self::of(Draft::Cron(expression.into()))
    }

    /// At a fixed rate: at the start and every `period` after it; without a start, first one period after creation.
    /// Whole milliseconds count.
    pub fn every(period: Duration) -> Self {
        Self::of(Draft::Every(period))
    }

    /// At the start (or at once), and then each time `delay` after the last run has ended, however it ended.
    pub fn after_completion(delay: Duration) -> Self {
        Self::of(Draft::After(delay))
    }

    /// The IANA time zone of the cron expression.
    pub fn tz(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// How many runs there are in all. Runs that were skipped or triggered by hand do not count.
    pub fn repeat(mut self, runs: u64) -> Self {
        self.repeat = Some(runs);
        self
    }

    /// No run is due before this. A start that has passed when the schedule is created makes up for nothing.
    pub fn start(mut self, at: Timestamp) -> Self {
        self.start = Some(at);
        self
    }

    /// No run is due after this.
    pub fn end(mut self, at: Timestamp) -> Self {
        self.end = Some(at);
        self
    }

    /// What happens to due runs that nobody was there to start.
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// What happens when a run is due while the one before has not ended.
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// The timing alone, checked.
    ///
    /// # Errors
    /// If the expression, the zone or the period is refused.
    pub fn timing(&self) -> Result<Timing, ScheduleError> {
        if self.zone.is_some() && !matches!(self.draft, Draft::Cron(_)) {
            return Err(ScheduleError::ZoneWithoutCron);
        }
        match &self.draft {
            Draft::Cron(expression) => {
                let zone = self.zone.as_deref().map_or(Ok(Zone::UTC), str::parse)?;
                Ok(Timing::Cron(Cron::new(expression, zone)?))
            }
            Draft::Every(period) => Ok(Timing::Every(check_period("every", *period)?)),
            Draft::After(delay) => Ok(Timing::After(check_period("after", *delay)?)),
        }
    }

    /// The schedule of `job`, checked. Of the job, what all runs share is used; see [`JobTemplate`].
    ///
    /// # Errors
    /// If the timing is refused, `repeat` is zero, the end is before the start, or the job depends on others.
    pub fn build(self, job: Job) -> Result<ScheduleDefinition, ScheduleError> {
        let timing = self.timing()?;
        if self.repeat == Some(0) {
            return Err(ScheduleError::Repeat);
        }
        if let (Some(start), Some(end)) = (self.start, self.end)
            && end < start
        {
            return Err(ScheduleError::Range { start, end });
        }
        Ok(ScheduleDefinition {
            timing,
            repeat: self.repeat,
            start: self.start,
            end: self.end,
            missed: self.missed,
            overlap: self.overlap,
            job: JobTemplate::new(job)?,
            extra: BTreeMap::new(),
        })
    }
}

fn check_period(what: &'static str, found: Duration) -> Result<Duration, ScheduleError> {
    if found < MIN_PERIOD || found > duration::MAX {
        return Err(ScheduleError::Period { what, found });
    }
    // Times have whole milliseconds; a period with more would drift.
    Ok(Duration::from_millis(found.as_millis() as u64))
}

/// A checked schedule and the job it makes: the part of a [`ScheduleRecord`](super::ScheduleRecord) that the user
/// decides. Two equal definitions are the same schedule, so that `upsert` can tell.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleDefinition {
    /// When it is due.
    pub timing: Timing,
    /// How many runs there are in all; `None` for no limit.
    pub repeat: Option<u64>,
    /// No run is due before this.
    pub start: Option<Timestamp>,
    /// No run is due after this.
    pub end: Option<Timestamp>,
    /// What happens to due runs that nobody was there to start.
    pub missed: Missed,
    /// What happens when a run is due while the one before has not ended.
    pub overlap: Overlap,
    /// The job it makes.
    pub job: JobTemplate,
    /// Fields this version does not know, kept as they came.
    pub extra: BTreeMap<String, RawJson>,
}

impl ScheduleDefinition {
    /// Whether the last run decides about the next, so that its status has to be looked up and its result kept.
    #[must_use]
    pub fn looks_at_last_run(&self) -> bool {
        self.timing.follows_completion() || self.overlap == Overlap::Skip
    }

    /// Whether it says the same as `other`. Fields of a later version do not count: who does not know them cannot have
    /// meant to change them.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        let bare = |definition: &Self| Self { extra: BTreeMap::new(), ..definition.clone() };
        bare(self) == bare(other)
    }
}

impl Serialize for ScheduleDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.timing {
            Timing::Cron(cron) => {
                map.serialize_entry("cron", cron.expression())?;
                map.serialize_entry("tz", &cron.zone())?;
            }
            Timing::Every(period) => map.serialize_entry("every", &Seconds(*period))?,
            Timing::After(delay) => map.serialize_entry("after", &Seconds(*delay))?,
        }
        map.serialize_entry("repeat", &self.repeat)?;
        map.serialize_entry("start", &self.start)?;
        map.serialize_entry("end", &self.end)?;
        map.serialize_entry("missed", &self.missed)?;
        map.serialize_entry("overlap", &self.overlap)?;
        map.serialize_entry("job", &self.job)?;
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ScheduleDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;

        let mut object = Object::read(deserializer)?;
        let cron = object.take_option::<String, D::Error>("cron")?;
        let every = object.take_option::<Seconds, D::Error>("every")?;
        let after = object.take_option::<Seconds, D::Error>("after")?;
        let mut schedule = match (cron, every, after) {
            (Some(expression), None, None) => Schedule::cron(expression),
            (None, Some(period), None) => Schedule::every(rounded(period)),
            (None, None, Some(delay)) => Schedule::after_completion(rounded(delay)),
            _ => return Err(D::Error::custom("a schedule has exactly one of cron, every and after")),
        };
        schedule.zone = object.take_option("tz")?;
        schedule.repeat = object.take_option("repeat")?;
        schedule.start = object.take_option("start")?;
        schedule.end = object.take_option("end")?;
        schedule.missed = object.take("missed")?;
        schedule.overlap = object.take("overlap")?;
        let job: JobTemplate = object.require("job")?;
        let mut definition = schedule.build(job.as_job().clone()).map_err(D::Error::custom)?;
        definition.extra = object.rest();
        Ok(definition)
    }
}

/// A fraction of seconds is a binary number on the wire; the milliseconds meant are the nearest.
fn rounded(seconds: Seconds) -> Duration {
    let millis = (seconds.0 + Duration::from_micros(500)).as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}
