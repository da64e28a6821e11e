//! [`EventId`]: the identity of an event, which carries its time.
//!
//! Invariant: a UUIDv7 of three parts that can be taken apart again: milliseconds since 1970, who told it
//! ([`EventOrigin`], drawn once by each process), and that process's own count. So ids need no randomness one by one, and
//! a batch of one process writes its origin once.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::Timestamp;

/// Who tells events: 42 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventOrigin([u8; 6]);

impl EventOrigin {
    /// An origin made of random bytes, of which some bits are set as a UUIDv7 has them.
    #[must_use]
    pub fn new(random: [u8; 6]) -> Self {
        let mut bytes = random;
        bytes[0] = (bytes[0] & 0x0f) | 0x70;
        bytes[2] = (bytes[2] & 0x3f) | 0x80;
        Self(bytes)
    }
}

/// The identity of an event, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId([u8; 16]);

impl EventId {
    /// An id from its parts. `number` counts what an origin tells; it may wrap, because the time is part of the id.
    #[must_use]
    pub fn new(time: Timestamp, origin: EventOrigin, number: u32) -> Self {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&time.unix_millis().max(0).to_be_bytes()[2..]);
        bytes[6..12].copy_from_slice(&origin.0);
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        Self(bytes)
    }

    /// When it happened.
    #[must_use]
    pub fn time(self) -> Timestamp {
        let millis = self.0[..6].iter().fold(0, |millis, byte| millis << 8 | i64::from(*byte));
        Timestamp::from_unix_millis(millis).unwrap_or(Timestamp::EPOCH)
    }

    /// Who told it.
    #[must_use]
    pub fn origin(self) -> EventOrigin {
        let mut origin = [0; 6];
        origin.copy_from_slice(&self.0[6..12]);
        EventOrigin(origin)
    }

    /// Its number among those of its origin.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0[12..].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }
}

/// Why a text is no id of an event, or no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {digits} hex digits of a UUIDv7")]
pub struct EventIdError {
    text: String,
    digits: usize,
}

fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).filter(|_| !c.is_ascii_uppercase());
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(bytes)
}

fn refused(text: &str, digits: usize) -> EventIdError {
    EventIdError { text: text.chars().take(64).collect(), digits }
}

/// The digits in a buffer, so that writing an id allocates nothing.
fn write(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    f.pad(std::str::from_utf8(&text[..2 * bytes.len()]).expect("hex digits are text"))
}

macro_rules! as_hex {
    ($name:ident, $bytes:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = EventIdError;
            fn from_str(text: &str) -> Result<Self, EventIdError> {
                read::<$bytes>(text).and_then(Self::checked).ok_or_else(|| refused(text, 2 * $bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

as_hex!(EventOrigin, 6);
as_hex!(EventId, 16);

impl EventOrigin {
    fn checked(bytes: [u8; 6]) -> Option<Self> {
        (Self::new(bytes).0 == bytes).then_some(Self(bytes))
    }
}

impl EventId {
    fn checked(bytes: [u8; 16]) -> Option<Self> {
        let id = Self(bytes);
        EventOrigin::checked(id.origin().0).map(|_| id)
    }
}
