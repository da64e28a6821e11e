//! [`Timestamp`]: a moment in UTC, to the millisecond.
//!
//! Invariant: it is written as RFC 3339 with exactly three fraction digits and `Z`, lies between the years 0 and 9999,
//! and reading accepts any RFC 3339 offset. Nothing here reads a clock.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// Milliseconds of 9999-12-31T23:59:59.999Z; RFC 3339 has four digits for a year.
const MAX_MILLIS: i64 = 253_402_300_799_999;
/// Milliseconds of 0000-01-01T00:00:00Z.
const MIN_MILLIS: i64 = -62_167_219_200_000;

/// A moment in UTC, to the millisecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time: {reason}; write RFC 3339, for example 2026-11-21T22:11:00Z")]
pub struct TimeError {
    text: String,
    reason: String,
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since 1970; `None` outside the years 0 to 9999.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Option<Self> {
        (MIN_MILLIS..=MAX_MILLIS).contains(&millis).then_some(Self(millis))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_millis(self) -> i64 {
        self.0
    }

    /// The moment `duration` later, at most the end of the year 9999; part milliseconds are cut.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis).min(MAX_MILLIS))
    }

    /// The moment `duration` earlier, at least the start of the year 0; part milliseconds are cut.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis).max(MIN_MILLIS))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        if let Some(time) = Self::read_own(text.as_bytes()) {
            return Ok(time);
        }
        let fail = |reason: String| TimeError { text: text.chars().take(64).collect(), reason };
        let time = DateTime::parse_from_rfc3339(text.trim()).map_err(|e| fail(e.to_string()))?;
        Self::from_unix_millis(time.timestamp_millis()).ok_or_else(|| fail("outside the years 0 to 9999".into()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Timestamp;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time as RFC 3339")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
        text.parse().map_err(E::custom)
    }
}

/// The text of a time: `2026-11-21T22:11:00.123Z`. Written and read digit by digit, because every job and
/// result has several: the general ways allocate, and look for forms that naq does not write.
struct Text([u8; LEN]);

const LEN: usize = 24;
/// Where the digits are, and what stands between them.
const SHAPE: &[u8; LEN] = b"0000-00-00T00:00:00.000Z";

impl Text {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits and marks")
    }

    fn put(&mut self, at: std::ops::Range<usize>, mut number: u32) {
        for digit in self.0[at].iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).expect("one digit");
            number /= 10;
        }
    }
}

impl Timestamp {
    fn text(self) -> Text {
        let time = DateTime::<Utc>::from_timestamp_millis(self.0).expect("the range is checked when it is made");
        let mut text = Text(*SHAPE);
        text.put(0..4, time.year().unsigned_abs());
        text.put(5..7, time.month());
        text.put(8..10, time.day());
        text.put(11..13, time.hour());
        text.put(14..16, time.minute());
        text.put(17..19, time.second());
        text.put(20..23, time.timestamp_subsec_millis());
        text
    }

    /// Reads exactly what [`text`](Self::text) writes; `None` for everything else, right or wrong.
    fn read_own(text: &[u8]) -> Option<Self> {
        let text: &[u8; LEN] = text.try_into().ok()?;
        let fits = |(found, wanted): (&u8, &u8)| if *wanted == b'0' { found.is_ascii_digit() } else { found == wanted };
        if !text.iter().zip(SHAPE).all(fits) {
            return None;
        }
        let number = |at: std::ops::Range<usize>| text[at].iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
        let date = NaiveDate::from_ymd_opt(i32::try_from(number(0..4)).ok()?, number(5..7), number(8..10))?;
        let time = date.and_hms_milli_opt(number(11..13), number(14..16), number(17..19), number(20..23))?;
        Self::from_unix_millis(time.and_utc().timestamp_millis())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn three_fraction_digits_always() {
        for (text, printed) in [
            ("2026-11-21T22:11:00Z", "2026-11-21T22:11:00.000Z"),
            ("2026-11-21T22:11:00.1239Z", "2026-11-21T22:11:00.123Z"),
            ("2026-11-21T22:11:00+02:00", "2026-11-21T20:11:00.000Z"),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), printed);
        }
        for text in [
            "",
            "yesterday",
            "2026-11-21",
            "2026-13-01T00:00:00Z",
            "2026-11-21 22:11",
            "2026-02-30T00:00:00.000Z",
            "2026-02-20T24:00:00.000Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(millis in MIN_MILLIS..=MAX_MILLIS) {
            let time = Timestamp::from_unix_millis(millis).unwrap();
            let text = time.to_string();
            prop_assert_eq!(text.parse::<Timestamp>(), Ok(time));
            let chrono = DateTime::<Utc>::from_timestamp_millis(millis).unwrap();
            prop_assert_eq!(&text, &chrono.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
            prop_assert_eq!(DateTime::parse_from_rfc3339(&text).unwrap().timestamp_millis(), millis);
        }
    }
}
