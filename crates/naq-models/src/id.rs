//! Identities: [`JobId`], [`QueueName`], [`ScheduleId`], [`Priority`].
//!
//! Invariant: a value of these types is safe as a NATS subject token, a file name and a table cell; it was validated
//! when it was constructed and is never checked again.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Timestamp;

/// Why a text is not a valid identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but a name of at least one character is allowed.
    #[error("{what} must not be empty")]
    Empty {
        /// Which kind of name was refused.
        what: &'static str,
    },
    /// Longer than the limit in bytes.
    #[error("{what} is {len} characters long; at most {max} are allowed")]
    TooLong {
        /// Which kind of name was refused.
        what: &'static str,
        /// Length given, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// A character outside `[A-Za-z0-9_-]`.
    #[error("{what} {name:?} has {found:?} at position {position}; allowed are A-Z a-z 0-9 _ and -")]
    Character {
        /// Which kind of name was refused.
        what: &'static str,
        /// The refused text, cut to 64 characters.
        name: String,
        /// The first character that is not allowed.
        found: char,
        /// Its position, counted in characters from 0.
        position: usize,
    },
}

fn check(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    // Every id that is read is checked: the happy path goes by bytes.
    if !name.bytes().all(allowed)
        && let Some((position, found)) = name.chars().enumerate().find(|(_, c)| !u8::try_from(*c).is_ok_and(allowed))
    {
        return Err(NameError::Character { what, name: name.chars().take(64).collect(), found, position });
    }
    if name.len() > max {
        return Err(NameError::TooLong { what, len: name.len(), max });
    }
    Ok(())
}

/// Reads a name without a copy of its text in between.
struct NameVisitor<T> {
    what: &'static str,
    make: fn(&str) -> Result<T, NameError>,
}

impl<T> de::Visitor<'_> for NameVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.make)(text).map_err(E::custom)
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest allowed text, in bytes.
            pub const MAX_LEN: usize = $max;

            /// Validates and keeps the text.
            ///
            /// # Errors
            /// If it is empty, too long, or holds a character outside `[A-Za-z0-9_-]`.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                check($what, name, Self::MAX_LEN)?;
                Ok(Self(Arc::from(name)))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(NameVisitor { what: $what, make: |text| Self::new(text) })
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// The identity of a job: a generated UUIDv7 as 32 hex digits, or the caller's own `[A-Za-z0-9_-]{1,128}`.
    JobId, "job id", 128
}

name_type! {
    /// The name of a queue: `[A-Za-z0-9_-]{1,64}`.
    QueueName, "queue name", 64
}

name_type! {
    /// The caller-chosen name of a schedule: `[A-Za-z0-9_-]{1,100}`, short enough that every [`ScheduleId::run_id`] is
    /// a valid [`JobId`].
    ScheduleId, "schedule id", 100
}

impl ScheduleId {
    /// The id of the run that is due at `due`: `<schedule>_<unix ms>`. The same due time gives the same id, so that a
    /// run that is published twice is stored once.
    #[must_use]
    pub fn run_id(&self, due: Timestamp) -> JobId {
        // At most 100 + 1 + 15 characters: a Timestamp has at most 15 digits with its sign.
        JobId(Arc::from(format!("{}_{}", self.0, due.unix_millis())))
    }
}

impl JobId {
    /// A UUIDv7 from its parts: milliseconds since 1970 in front, so that ids sort by time, then 74 random bits.
    #[must_use]
    pub fn generate(now: Timestamp, random: [u8; 10]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = [0u8; 16];
        bytes[..6].copy_from_slice(&now.unix_millis().max(0).to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&random);
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = [0u8; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        Self(Arc::from(std::str::from_utf8(&text).expect("hex digits are text")))
    }

    /// Whether the id has the form of [`JobId::generate`]. Such ids are taken to be unique by themselves; all others
    /// are reserved in the store when they are enqueued.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        let b = self.0.as_bytes();
        b.len() == 32
            && b[12] == b'7'
            && matches!(b[16], b'8' | b'9' | b'a' | b'b')
            && b.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// When a generated id was made; `None` for a caller's own id.
    #[must_use]
    pub fn generated_at(&self) -> Option<Timestamp> {
        if !self.is_generated() {
            return None;
        }
        i64::from_str_radix(&self.0[..12], 16).ok().and_then(Timestamp::from_unix_millis)
    }
}

/// The queue used where none is named.
pub const DEFAULT_QUEUE_NAME: &str = "default";

impl Default for QueueName {
    fn default() -> Self {
        Self(Arc::from(DEFAULT_QUEUE_NAME))
    }
}

/// How urgent a job is within its queue: 0 first, 3 last, 2 by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Priority(u8);

impl Priority {
    /// All priorities, the most urgent first.
    pub const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    /// # Errors
    /// If the number is over 3.
    pub fn new(value: u8) -> Result<Self, PriorityError> {
        if value > 3 { Err(PriorityError(value)) } else { Ok(Self(value)) }
    }

    /// 0 (most urgent) to 3.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(2)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A priority over 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a priority: 0 (most urgent) to 3")]
pub struct PriorityError(u8);

impl TryFrom<u8> for Priority {
    type Error = PriorityError;
    fn try_from(value: u8) -> Result<Self, PriorityError> {
        Self::new(value)
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> u8 {
        priority.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", "a.b", "a*", ">", "a b", "../x", "ü", "a\n", "a/b", "a\0"] {
            assert!(QueueName::new(name).is_err(), "{name:?}");
            assert!(JobId::new(name).is_err(), "{name:?}");
        }
        assert!(QueueName::new("x".repeat(64)).is_ok());
        assert!(matches!(QueueName::new("x".repeat(65)), Err(NameError::TooLong { len: 65, .. })));
        assert!(JobId::new("x".repeat(128)).is_ok());
        assert!(JobId::new("x".repeat(129)).is_err());
    }

    #[test]
    fn only_generated_ids_look_generated() {
        for id in ["order-17", "0199", &"a".repeat(32), "01990000000070008000000000000000x"] {
            assert!(!JobId::new(id).unwrap().is_generated(), "{id}");
        }
    }

    #[test]
    fn every_run_id_is_a_job_id() {
        let longest = ScheduleId::new("x".repeat(100)).unwrap();
        for millis in [-62_167_219_200_000, 0, 1_795_304_000_123, 253_402_300_799_999] {
            let run = longest.run_id(Timestamp::from_unix_millis(millis).unwrap());
            assert_eq!(JobId::new(run.as_str()), Ok(run.clone()));
            assert!(run.as_str().ends_with(&format!("x_{millis}")));
        }
        assert!(ScheduleId::new("x".repeat(101)).is_err());
    }

    proptest! {
        #[test]
        fn generated_ids_carry_and_sort_by_their_time(a in 0i64..(1 << 47), b in 0i64..(1 << 47), random: [u8; 10]) {
            let at = |ms| JobId::generate(Timestamp::from_unix_millis(ms).unwrap(), random);
            prop_assert!(at(a).is_generated());
            prop_assert_eq!(at(a).generated_at(), Timestamp::from_unix_millis(a));
            prop_assert_eq!(a.cmp(&b), at(a).cmp(&at(b)));
        }
    }
}
