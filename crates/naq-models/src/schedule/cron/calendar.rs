//! Which moments of the wall clock a cron expression names, without any time zone.
//!
//! Invariant: [`Calendar::at_or_after`] is the smallest matching second that is not before its argument, looks at whole
//! months and days rather than seconds, and gives up after [`HORIZON_YEARS`].

use chrono::{Datelike, Days, Months, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::field::Selection;

/// How far a search looks: the rarest date there is, a fifth given weekday of February, comes every 28 years, or 40
/// across a century that has no leap day.
pub(super) const HORIZON_YEARS: i32 = 100;

/// The values of the six fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Calendar {
    pub(super) second: Selection,
    pub(super) minute: Selection,
    pub(super) hour: Selection,
    pub(super) day: Selection,
    pub(super) month: Selection,
    pub(super) weekday: Selection,
}

impl Calendar {
    /// Whether no hour of a day is left out.
    pub(super) fn every_hour(&self) -> bool {
        self.hour.values == (1 << 24) - 1
    }

    /// The first matching second from `from` on.
    pub(super) fn at_or_after(&self, from: NaiveDateTime) -> Option<NaiveDateTime> {
        // A started second has passed.
        let from = match from.nanosecond() {
            0 => from,
            _ => from.with_nanosecond(0)?.checked_add_signed(chrono::TimeDelta::seconds(1))?,
        };
        let last_year = from.year().saturating_add(HORIZON_YEARS);
        let mut date = from.date();
        let mut earliest = from.time();
        while date.year() <= last_year {
            if self.month.values & (1 << date.month()) == 0 {
                date = date.with_day(1)?.checked_add_months(Months::new(1))?;
                earliest = NaiveTime::MIN;
                continue;
            }
            if self.has_day(date)
                && let Some(time) = self.time_at_or_after(earliest)
            {
                return Some(date.and_time(time));
            }
            date = date.checked_add_days(Days::new(1))?;
            earliest = NaiveTime::MIN;
        }
        None
    }

    /// As in every cron: if both day fields restrict, a day needs to satisfy only one of them.
    fn has_day(&self, date: NaiveDate) -> bool {
        match (self.day.any, self.weekday.any) {
            (true, true) => true,
            (false, true) => self.has_day_of_month(date),
            (true, false) => self.has_weekday(date),
            (false, false) => self.has_day_of_month(date) || self.has_weekday(date),
        }
    }

    fn has_day_of_month(&self, date: NaiveDate) -> bool {
        self.day.values & (1 << date.day()) != 0 || (self.day.last_day && date.day() == month_length(date))
    }

    fn has_weekday(&self, date: NaiveDate) -> bool {
        let weekday = date.weekday().num_days_from_sunday();
        let nth = (date.day() as usize - 1) / 7;
        self.weekday.values & (1 << weekday) != 0
            || self.weekday.nth_weekday[nth] & (1 << weekday) != 0
            || (self.weekday.last_weekday & (1 << weekday) != 0 && date.day() + 7 > month_length(date))
    }

    fn time_at_or_after(&self, from: NaiveTime) -> Option<NaiveTime> {
        let (mut hour, mut minute, mut second) = (from.hour(), from.minute(), from.second());
        loop {
            let next_hour = first_from(self.hour.values, hour)?;
            if next_hour != hour {
                (hour, minute, second) = (next_hour, 0, 0);
            }
            let Some(next_minute) = first_from(self.minute.values, minute) else {
                (hour, minute, second) = (hour + 1, 0, 0);
                continue;
            };
            if next_minute != minute {
                (minute, second) = (next_minute, 0);
            }
            match first_from(self.second.values, second) {
                Some(second) => return NaiveTime::from_hms_opt(hour, minute, second),
                None => (minute, second) = (minute + 1, 0),
            }
        }
    }
}

/// The smallest value of the set that is at least `from`.
fn first_from(values: u64, from: u32) -> Option<u32> {
    let rest = values.checked_shr(from)?;
    (rest != 0).then(|| from + rest.trailing_zeros())
}

fn month_length(date: NaiveDate) -> u32 {
    u32::from(date.num_days_in_month())
}
