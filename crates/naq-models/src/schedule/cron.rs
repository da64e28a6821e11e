//! [`Cron`]: a cron expression in a time zone, and when it is due.
//!
//! Invariant: [`Cron::next_after`] is strictly later than its argument, depends on nothing else, and follows the rule
//! for clock changes below. The wall clock is walked without a zone (`calendar`) and resolved by the zone (`zone`),
//! because a search over zoned times meets gaps and repetitions in the middle of its fields.
//!
//! **When clocks change.** An expression that leaves out any hour of the day names *times of day*: each of them runs
//! once. A time that is skipped runs at the first moment after the gap (several skipped times make one run there), a
//! time that the clock shows twice runs the first time. An expression that names every hour (`*/15 * * * *`,
//! `0 * * * *`) is an *interval*: it runs at each real moment at which the clock shows a named time, so each real
//! quarter hour when an hour is repeated, and it makes up nothing for times that do not exist.

mod calendar;
mod field;
#[cfg(test)]
mod tests;
mod zone;

use std::{fmt, time::Duration};

use calendar::Calendar;
use chrono::{NaiveDate, NaiveDateTime, TimeDelta};
pub use field::CronField;
use field::{FieldText, Selection};
pub use zone::{Zone, ZoneError};

use crate::Timestamp;

/// The longest expression, in bytes.
pub const MAX_EXPRESSION: usize = 512;

/// No zone has turned its clock back by more since 1970.
const LONGEST_REPEAT: Duration = Duration::from_secs(4 * 3600);

/// What `@daily` and its friends stand for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Why a text is not a cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Neither five nor six fields.
    #[error(
        "a cron expression has 5 fields (minute, hour, day of month, month, day of week) or 6 (second first), not {found}"
    )]
    FieldCount {
        /// How many there are.
        found: usize,
    },
    /// Longer than [`MAX_EXPRESSION`].
    #[error("a cron expression has at most {MAX_EXPRESSION} bytes, not {len}")]
    TooLong {
        /// Length given, in bytes.
        len: usize,
    },
    /// A word with `@` that stands for nothing.
    #[error("{text:?} is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly")]
    Nickname {
        /// The refused word, cut to 64 characters.
        text: String,
    },
    /// One field cannot be read.
    #[error("{field} (field {position}, column {column}): {text:?} {problem}")]
    Field {
        /// Which field.
        field: CronField,
        /// The field's number in the expression, from 1.
        position: usize,
        /// The column where the refused part of the field starts, in characters from 1.
        column: usize,
        /// The refused part of the field, cut to 64 characters.
        text: String,
        /// What is wrong with it.
        problem: FieldProblem,
    },
    /// No date satisfies it, as with 30 February.
    #[error("{text:?} never comes: no date has that day in that month")]
    Never {
        /// The expression.
        text: String,
    },
}

/// What is wrong with one part of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldProblem {
    /// Nothing between two commas, or before or after one.
    #[error("is empty: a comma stands between two values")]
    Empty,
    /// A number that the field does not have.
    #[error("is out of range: {min} to {max}")]
    Range {
        /// The smallest value of the field.
        min: u8,
        /// The largest.
        max: u8,
    },
    /// Neither a number nor a word of this field.
    #[error("is not known here; allowed are {allowed}")]
    Unknown {
        /// What may stand there.
        allowed: &'static str,
    },
    /// A range whose end is before its start.
    #[error("runs backwards; write two ranges with a comma")]
    Backwards,
    /// A step that is no number, zero, or longer than the field.
    #[error("has no step between 1 and {most}")]
    Step {
        /// The largest step that makes sense.
        most: u8,
    },
    /// `#` without a number from 1 to 5.
    #[error("needs a number from 1 to 5 after #, as in 5#2 for the second Friday")]
    Nth,
    /// `L` alone among the days of the week.
    #[error("needs a day before L, as in 5L for the last Friday")]
    BareLast,
}

/// A cron expression in a time zone.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    expression: String,
    zone: Zone,
    calendar: Calendar,
}

impl Cron {
    /// Reads five fields (minute, hour, day of month, month, day of week), six (second first), or a word such as
    /// `@daily`.
    ///
    /// Fields are lists (`,`) of values, ranges (`-`) and steps (`/`); `a/n` means from `a` to the end by `n`. Names
    /// of months and days are three letters in any case. `L` is the last day of the month, `5L` the last Friday, `5#2`
    /// the second. If both day fields restrict, a day needs to satisfy only one of them.
    ///
    /// # Errors
    /// If the text is none of these, or names a date that never comes; the error says which field and where.
    pub fn new(expression: &str, zone: Zone) -> Result<Self, CronError> {
        if expression.len() > MAX_EXPRESSION {
            return Err(CronError::TooLong { len: expression.len() });
        }
        let text = expression.trim();
        let calendar = read(if text.starts_with('@') { nickname(text)? } else { expression })?;
        // Any year does: the calendar repeats within the horizon of a search.
        let start = NaiveDate::from_ymd_opt(2000, 1, 1).and_then(|date| date.and_hms_opt(0, 0, 0));
        if start.and_then(|start| calendar.at_or_after(start)).is_none() {
            return Err(CronError::Never { text: text.to_owned() });
        }
        Ok(Self { expression: text.to_owned(), zone, calendar })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The zone whose wall clock it follows.
    #[must_use]
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// The first due moment after `t`; `None` if there is none within a hundred years or before the year 10000.
    #[must_use]
    pub fn next_after(&self, t: Timestamp) -> Option<Timestamp> {
        if self.calendar.every_hour() { self.next_interval(t) } else { self.next_time_of_day(t) }
    }

    /// Times of day: the first showing of each counts, or the end of the gap that swallows it.
    fn next_time_of_day(&self, t: Timestamp) -> Option<Timestamp> {
        let mut local = self.calendar.at_or_after(after(self.zone.local(t))?)?;
        loop {
            match self.zone.first(local)? {
                due if due > t => return Some(due),
                // The clock shows this time for the second time: it has had its run.
                _ => local = self.calendar.at_or_after(after(local)?)?,
            }
        }
    }

    /// Intervals: every real moment at which the clock shows a named time.
    fn next_interval(&self, t: Timestamp) -> Option<Timestamp> {
        let ahead = self.next_without_turning_back(t);
        match self.turn_back_soon(t) {
            Some(turn) => {
                // The named times that the clock shows again from its turn on.
                let offset = self.zone.offset(turn);
                let again = self.calendar.at_or_after(self.zone.local(turn))?;
                let due = Timestamp::from_unix_millis((again - offset).and_utc().timestamp_millis())?;
                let repeated = (self.zone.offset(due) == offset).then_some(due);
                [ahead, repeated].into_iter().flatten().min()
            }
            None => ahead,
        }
    }

    fn next_without_turning_back(&self, t: Timestamp) -> Option<Timestamp> {
        let mut local = self.calendar.at_or_after(after(self.zone.local(t))?)?;
        loop {
            // Nothing comes after the last year; a gap has an end.
            self.zone.first(local)?;
            if let Some(due) = self.zone.moments(local).into_iter().flatten().find(|due| *due > t) {
                return Some(due);
            }
            local = self.calendar.at_or_after(after(local)?)?;
        }
    }

    /// The moment after `t` at which the clock is next turned back, if that is within [`LONGEST_REPEAT`].
    fn turn_back_soon(&self, t: Timestamp) -> Option<Timestamp> {
        let before = self.zone.offset(t);
        let (mut low, mut high) = (t.unix_millis(), t.saturating_add(LONGEST_REPEAT).unix_millis());
        if self.zone.offset(Timestamp::from_unix_millis(high)?) >= before {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.zone.offset(Timestamp::from_unix_millis(middle)?) < before { high = middle } else { low = middle }
        }
        Timestamp::from_unix_millis(high)
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?}, {})", self.expression, self.zone)
    }
}

/// The second after the one that `local` lies in.
fn after(local: NaiveDateTime) -> Option<NaiveDateTime> {
    local.checked_add_signed(TimeDelta::nanoseconds(1))
}

fn nickname(text: &str) -> Result<&'static str, CronError> {
    NICKNAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, fields)| *fields)
        .ok_or_else(|| CronError::Nickname { text: text.chars().take(64).collect() })
}

fn read(text: &str) -> Result<Calendar, CronError> {
    let found = text.split_whitespace().count();
    if !(5..=6).contains(&found) {
        return Err(CronError::FieldCount { found });
    }
    let mut selections = [Selection { values: 1, ..Selection::default() }; 6];
    let skipped = 6 - found;
    let words = text.split_whitespace();
    for (index, word) in words.enumerate() {
        // The word is a part of the text, so the distance of their starts is its place.
        let byte = word.as_ptr() as usize - text.as_ptr() as usize;
        let column = text[..byte].chars().count() + 1;
        let field = CronField::ALL[skipped + index];
        selections[skipped + index] = FieldText { field, position: index + 1, column, text: word }.select()?;
    }
    let [second, minute, hour, day, month, weekday] = selections;
    Ok(Calendar { second, minute, hour, day, month, weekday })
}
