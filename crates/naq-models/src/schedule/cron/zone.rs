//! [`Zone`]: an IANA time zone, and how wall clock times become moments.
//!
//! Invariant: [`Zone::first`] never goes back when the wall clock advances. The rules of the zones are compiled in, so
//! that every process of one build agrees on them; nothing here reads the host's zone.

use std::{fmt, str::FromStr};

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, SecondsFormat, TimeDelta, TimeZone, Utc};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// An IANA time zone, such as `Europe/Berlin`. UTC by default.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(Tz);

/// A text that names no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not an IANA time zone; the nearest known is {nearest:?}")]
pub struct ZoneError {
    /// The refused text, cut to 64 characters.
    pub name: String,
    /// The zone whose name is most like it.
    pub nearest: &'static str,
}

impl Zone {
    /// UTC.
    pub const UTC: Self = Self(Tz::UTC);

    /// The IANA name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// A moment as RFC 3339 in this zone, for people: `2026-11-22T03:00:00+01:00`; with three fraction digits where
    /// the second is not whole.
    #[must_use]
    pub fn format(self, at: Timestamp) -> String {
        let digits = if at.unix_millis().rem_euclid(1000) == 0 { SecondsFormat::Secs } else { SecondsFormat::Millis };
        utc(at).with_timezone(&self.0).to_rfc3339_opts(digits, false)
    }

    /// What the wall clock shows at `at`.
    pub(super) fn local(self, at: Timestamp) -> NaiveDateTime {
        utc(at).with_timezone(&self.0).naive_local()
    }

    /// How far the wall clock is ahead of UTC at `at`.
    pub(super) fn offset(self, at: Timestamp) -> TimeDelta {
        let offset = self.0.offset_from_utc_datetime(&utc(at).naive_utc()).fix();
        TimeDelta::seconds(i64::from(offset.local_minus_utc()))
    }

    /// When the wall clock first shows `local`; if it never does, the end of the gap that swallows it.
    pub(super) fn first(self, local: NaiveDateTime) -> Option<Timestamp> {
        let at = match self.0.from_local_datetime(&local) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => at,
            MappedLocalTime::None => GapInfo::new(&local, &self.0)?.end?,
        };
        Timestamp::from_unix_millis(at.timestamp_millis())
    }

    /// When the wall clock shows `local`, the second time if it shows it twice; `None` if it never does.
    pub(super) fn moments(self, local: NaiveDateTime) -> [Option<Timestamp>; 2] {
        let millis = |at: DateTime<Tz>| Timestamp::from_unix_millis(at.timestamp_millis());
        match self.0.from_local_datetime(&local) {
            MappedLocalTime::Single(at) => [millis(at), None],
            MappedLocalTime::Ambiguous(one, two) => [millis(one), millis(two)],
            MappedLocalTime::None => [None, None],
        }
    }
}

fn utc(at: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at.unix_millis()).expect("a Timestamp lies in the years 0 to 9999")
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Self, ZoneError> {
        let name: String = text.trim().chars().take(64).collect();
        name.parse::<Tz>().map(Self).map_err(|_unknown| ZoneError { nearest: nearest(&name), name })
    }
}

/// The zone most like `name`: by its whole name, or by its city alone, as in `Berlin`.
fn nearest(name: &str) -> &'static str {
    let wanted = name.to_ascii_lowercase().replace(' ', "_");
    let distance = |zone: &Tz| {
        let known = zone.name().to_ascii_lowercase();
        let city = known.rsplit('/').next().unwrap_or_default();
        strsim::damerau_levenshtein(&wanted, &known).min(strsim::damerau_levenshtein(&wanted, city) + 1)
    };
    TZ_VARIANTS.iter().min_by_key(|zone| distance(zone)).map_or("UTC", |zone| zone.name())
}

impl TryFrom<String> for Zone {
    type Error = ZoneError;
    fn try_from(text: String) -> Result<Self, ZoneError> {
        text.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.name().to_owned()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.name(), f)
    }
}
