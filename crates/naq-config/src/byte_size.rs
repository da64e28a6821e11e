//! [`ByteSize`]: sizes as people write them.
//!
//! Invariant: what is printed reads back as the same number. `KB`, `MB`… are decimal, `KiB`, `MiB`… binary.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::number_or_text;

/// A number of bytes, written as a number or with a unit: `64KiB`, `100 MB` (decimal), `1GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// The units of [`ByteSize`], the largest first within each family so that a size prints with the largest that divides it.
const UNITS: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];

/// Why a text is not a size in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a size; write a number of bytes or 64KiB, 100MB, 1GB")]
pub struct ByteSizeError {
    text: String,
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let refused = || ByteSizeError { text: text.to_owned() };
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..digits], trimmed[digits..].trim());
        let factor = match unit {
            "" | "B" | "b" => 1,
            _ => UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                // `100M` is decimal, like `100MB`.
                .or_else(|| UNITS[4..].iter().find(|(name, _)| name[..1].eq_ignore_ascii_case(unit)))
                .map(|(_, factor)| *factor)
                .ok_or_else(refused)?,
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(refused);
        }
        let bytes = number.parse::<f64>().map_err(|_| refused())? * factor as f64;
        if bytes.fract() != 0.0 || bytes >= u64::MAX as f64 { Err(refused()) } else { Ok(Self(bytes as u64)) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a number of bytes or a size such as 64KiB, 100MB, 1GB";
        number_or_text(deserializer, expected, |bytes| Some(Self(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1234", 1234),
            ("100 MB", 100_000_000),
            ("100MiB", 104_857_600),
            ("1gb", 1_000_000_000),
            ("1.5KiB", 1536),
            ("2k", 2000),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "x", "1 parsec", "-1", "99999999999TB", "1.5"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text} must be refused");
        }
        for bytes in [0, 1, 1000, 1024, 1_048_576, 100_000_000, 1_000_000_000, 123_457] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }
}
