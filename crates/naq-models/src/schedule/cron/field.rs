//! The fields of a cron expression: their names, bounds and words, and how one field's text becomes a set of values.
//!
//! Invariant: a refused text is named by its field, the field's number and the column where the refused part starts,
//! both counted from 1. What a set of values means for a date is decided in `calendar`.

use std::fmt;

use super::{CronError, FieldProblem};

/// One of the six fields of a cron expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CronField {
    /// 0-59; only in expressions of six fields, where it stands first.
    Second,
    /// 0-59.
    Minute,
    /// 0-23.
    Hour,
    /// 1-31, `L` for the last day of the month.
    DayOfMonth,
    /// 1-12 or JAN-DEC.
    Month,
    /// 0-7 or SUN-SAT, where 0 and 7 are Sunday; `5L` for the last Friday, `5#2` for the second.
    DayOfWeek,
}

impl CronField {
    /// All six, in the order of an expression.
    pub const ALL: [Self; 6] = [Self::Second, Self::Minute, Self::Hour, Self::DayOfMonth, Self::Month, Self::DayOfWeek];

    /// As people say it: `minute`, `day of month`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::DayOfWeek => "day of week",
        }
    }

    /// The smallest and the largest number allowed.
    #[must_use]
    pub fn bounds(self) -> (u8, u8) {
        match self {
            Self::Second | Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 7),
        }
    }

    /// The words allowed instead of numbers, in order, and the number of the first.
    fn words(self) -> (&'static [&'static str], u8) {
        match self {
            Self::Month => (&["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"], 1),
            Self::DayOfWeek => (&["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"], 0),
            _ => (&[], 0),
        }
    }
}

impl fmt::Display for CronField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What one field selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Selection {
    /// Bit n stands for the value n.
    pub(super) values: u64,
    /// Every value is selected (`*`, `?`, `*/1`): the field does not restrict.
    pub(super) any: bool,
    /// Day of month: `L`.
    pub(super) last_day: bool,
    /// Day of week: bit n for `nL`, the last weekday n of a month.
    pub(super) last_weekday: u8,
    /// Day of week: bit n of entry k - 1 for `n#k`, the k-th weekday n of a month.
    pub(super) nth_weekday: [u8; 5],
}

/// One field's text, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldText<'a> {
    pub(super) field: CronField,
    /// Number of the field in its expression, from 1.
    pub(super) position: usize,
    /// Column of the first character, from 1.
    pub(super) column: usize,
    pub(super) text: &'a str,
}

impl FieldText<'_> {
    /// Reads the field.
    pub(super) fn select(self) -> Result<Selection, CronError> {
        let mut selection = Selection::default();
        let mut column = self.column;
        for part in self.text.split(',') {
            self.add(part, &mut selection).map_err(|problem| CronError::Field {
                field: self.field,
                position: self.position,
                column,
                text: part.chars().take(64).collect(),
                problem,
            })?;
            column += part.chars().count() + 1;
        }
        if self.field == CronField::DayOfWeek && selection.values & (1 << 7) != 0 {
            selection.values = (selection.values | 1) & !(1 << 7);
        }
        let (min, last) = (self.field.bounds().0, self.last());
        selection.any = (min..=last).all(|value| selection.values & (1 << value) != 0);
        Ok(selection)
    }

    fn add(self, part: &str, selection: &mut Selection) -> Result<(), FieldProblem> {
        if part.is_empty() {
            return Err(FieldProblem::Empty);
        }
        if self.add_special(part, selection)? {
            return Ok(());
        }
        let min = self.field.bounds().0;
        let (base, step) = match part.split_once('/') {
            Some((base, step)) => (base, Some(self.step(step)?)),
            None => (part, None),
        };
        let (from, to) = match base {
            "*" => (min, self.last()),
            "?" if matches!(self.field, CronField::DayOfMonth | CronField::DayOfWeek) => (min, self.last()),
            _ => match base.split_once('-') {
                Some((from, to)) => {
                    let (from, mut to) = (self.value(from)?, self.value(to)?);
                    // SAT-SUN and 5-0: a week that ends on Sunday.
                    if self.field == CronField::DayOfWeek && to == 0 && from > 0 {
                        to = 7;
                    }
                    if from > to {
                        return Err(FieldProblem::Backwards);
                    }
                    (from, to)
                }
                None => {
                    let from = self.value(base)?;
                    (from, if step.is_some() { self.last().max(from) } else { from })
                }
            },
        };
        for value in (from..=to).step_by(usize::from(step.unwrap_or(1))) {
            selection.values |= 1 << value;
        }
        Ok(())
    }

    /// `L`, `5L`, `FRI#2`. Says whether the part was one of these.
    fn add_special(self, part: &str, selection: &mut Selection) -> Result<bool, FieldProblem> {
        match self.field {
            CronField::DayOfMonth if part.eq_ignore_ascii_case("L") => {
                selection.last_day = true;
                Ok(true)
            }
            CronField::DayOfWeek => {
                if let Some((day, nth)) = part.split_once('#') {
                    let nth = nth.parse::<usize>().ok().filter(|n| (1..=5).contains(n)).ok_or(FieldProblem::Nth)?;
                    selection.nth_weekday[nth - 1] |= 1 << (self.value(day)? % 7);
                    return Ok(true);
                }
                match part.strip_suffix(['L', 'l']) {
                    Some("") => Err(FieldProblem::BareLast),
                    Some(day) => {
                        selection.last_weekday |= 1 << (self.value(day)? % 7);
                        Ok(true)
                    }
                    None => Ok(false),
                }
            }
            _ => Ok(false),
        }
    }

    /// The last value of `*`: without the second name of Sunday.
    fn last(self) -> u8 {
        if self.field == CronField::DayOfWeek { 6 } else { self.field.bounds().1 }
    }

    fn step(self, text: &str) -> Result<u8, FieldProblem> {
        let most = self.last() - self.field.bounds().0 + 1;
        match number(text) {
            Some(step) if (1..=u32::from(most)).contains(&step) => Ok(step as u8),
            _ => Err(FieldProblem::Step { most }),
        }
    }

    fn value(self, text: &str) -> Result<u8, FieldProblem> {
        let (min, max) = self.field.bounds();
        let (words, first) = self.field.words();
        if let Some(index) = words.iter().position(|word| word.eq_ignore_ascii_case(text)) {
            return Ok(first + index as u8);
        }
        match number(text) {
            Some(value) if (u32::from(min)..=u32::from(max)).contains(&value) => Ok(value as u8),
            Some(_) => Err(FieldProblem::Range { min, max }),
            None => Err(FieldProblem::Unknown { allowed: self.allowed() }),
        }
    }

    fn allowed(self) -> &'static str {
        match self.field {
            CronField::Second | CronField::Minute | CronField::Hour => "numbers, * , - and /",
            CronField::DayOfMonth => "numbers, L (the last day), ? * , - and /",
            CronField::Month => "numbers, JAN to DEC, * , - and /",
            CronField::DayOfWeek => "numbers, SUN to SAT, 5L (the last Friday), 5#2 (the second), ? * , - and /",
        }
    }
}

/// Digits alone: no sign, no more than fits.
fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}
