//! Durations as people write them (`250ms`, `1h30m`, `5`) and as the wire carries them (a number of seconds).
//!
//! Invariant: `parse(&format(d)) == d` for every duration of whole milliseconds. The wire form is a JSON number of
//! seconds, whole when it can be. Negative, infinite and absurd values are errors, never clamped.

use std::time::Duration;

/// The longest duration that naq accepts: 100 years. Longer ones are a mistake and would overflow times.
pub const MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why a text or number is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: {reason}; write 250ms, 5s, 10m, 1h30m or a number of seconds")]
pub struct DurationError {
    text: String,
    reason: String,
}

impl DurationError {
    fn new(text: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { text: text.into(), reason: reason.into() }
    }
}

/// Reads `250ms`, `5s`, `10m`, `1h30m`, `2days` or a plain number of seconds (`5`, `0.25`).
///
/// # Errors
/// If the text is neither, is negative, or exceeds [`MAX`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let trimmed = text.trim();
    if let Ok(seconds) = trimmed.parse::<f64>() {
        return from_seconds(seconds).map_err(|reason| DurationError::new(text, reason));
    }
    let parsed = humantime::parse_duration(trimmed).map_err(|e| DurationError::new(text, e.to_string()))?;
    if parsed > MAX {
        return Err(DurationError::new(text, "longer than 100 years"));
    }
    Ok(parsed)
}

/// Writes a duration so that [`parse`] reads it back: `250ms`, `1h 30m`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A duration from a number of seconds.
///
/// # Errors
/// A reason in words if the number is negative, not finite, or more than [`MAX`].
pub fn from_seconds(seconds: f64) -> Result<Duration, &'static str> {
    if !seconds.is_finite() {
        return Err("not a finite number");
    }
    if seconds < 0.0 {
        return Err("negative");
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| "longer than 100 years")?;
    if duration > MAX {
        return Err("longer than 100 years");
    }
    Ok(duration)
}

/// Serde for a duration as a JSON number of seconds: `#[serde(with = "naq_models::duration::seconds")]`.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes whole seconds as an integer, others as a fraction.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if duration.subsec_nanos() == 0 {
            serializer.serialize_u64(duration.as_secs())
        } else {
            serializer.serialize_f64(duration.as_secs_f64())
        }
    }

    /// Reads any non-negative finite number.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::from_seconds(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A duration that is a JSON number of seconds, for use inside lists and options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Seconds(#[serde(with = "seconds")] pub Duration);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("5", 5_000),
            ("0.25", 250),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "abc", "-1", "5 parsecs", "inf", "NaN", "200years", "1e300"] {
            assert!(parse(text).is_err(), "{text} must be refused");
        }
    }

    proptest! {
        #[test]
        fn format_round_trips(millis in 0u64..=MAX.as_millis() as u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn wire_round_trips_milliseconds(millis in 0u64..=10_000_000_000) {
            let duration = Seconds(Duration::from_millis(millis));
            let text = serde_json::to_string(&duration).unwrap();
            let back: Seconds = serde_json::from_str(&text).unwrap();
            let off = back.0.abs_diff(duration.0);
            prop_assert!(off < Duration::from_micros(1), "{} came back {:?}", text, back);
        }
    }
}
