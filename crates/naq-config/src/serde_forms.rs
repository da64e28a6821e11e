//! How settings that have no serde form of their own are read and written: durations, lists, reconnect limits.
//!
//! Invariant: a refused value names what was expected and leaves the value to the caller, who knows whether it may be
//! printed. Writing and reading again gives the same value.

use std::fmt;

use serde::de;

/// `5s`, `1h30m` or a number of seconds.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use super::DurationVisitor;

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&naq_models::duration::format(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(DurationVisitor { bare_number: Duration::from_secs(1) })
    }
}

/// As [`duration`], except that a bare number is milliseconds, as the setting always meant.
pub(crate) mod duration_or_millis {
    use std::time::Duration;

    use serde::Deserializer;

    use super::DurationVisitor;
    pub(crate) use super::duration::serialize;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(DurationVisitor { bare_number: Duration::from_millis(1) })
    }
}

/// A [`duration`] that may be left out.
pub(crate) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Wrapped(#[serde(with = "super::duration")] Duration);

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

/// A number of attempts, or `-1` or `unlimited` for no limit (`None`).
pub(crate) mod limit {
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(limit: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(limit.map_or(-1, i64::from))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
        deserializer.deserialize_any(super::LimitVisitor)
    }
}

/// A list, or one text with commas between the items.
pub(crate) mod server_list {
    use serde::Deserializer;

    use crate::store::ServerUrl;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ServerUrl>, D::Error> {
        deserializer.deserialize_any(super::ServerListVisitor)
    }
}

struct DurationVisitor {
    bare_number: std::time::Duration,
}

impl DurationVisitor {
    fn number<E: de::Error>(&self, number: f64) -> Result<std::time::Duration, E> {
        naq_models::duration::from_seconds(number * self.bare_number.as_secs_f64())
            .map_err(|_| E::invalid_value(de::Unexpected::Float(number), self))
    }
}

impl de::Visitor<'_> for DurationVisitor {
    type Value = std::time::Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.bare_number.as_secs() == 1 { "seconds" } else { "milliseconds" };
        write!(f, "a duration (250ms, 5s, 10m, 1h30m) or a number of {unit}, at most 100 years")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.number(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.number(number as f64)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        self.number(number)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if let Ok(number) = text.trim().parse::<f64>() {
            return self.number(number);
        }
        naq_models::duration::parse(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

struct LimitVisitor;

impl de::Visitor<'_> for LimitVisitor {
    type Value = Option<u32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of attempts, or -1 or unlimited for no limit")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        u32::try_from(number).map(Some).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        match number {
            -1 => Ok(None),
            _ => u32::try_from(number).map(Some).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match text.trim() {
            "unlimited" => Ok(None),
            trimmed => match trimmed.parse::<i64>() {
                Ok(number) => self.visit_i64(number),
                Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            },
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

struct ServerListVisitor;

impl<'de> de::Visitor<'de> for ServerListVisitor {
    type Value = Vec<crate::store::ServerUrl>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of server URLs such as nats://127.0.0.1:4222, or one text with commas between them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        crate::store::ServerUrl::parse_list(text).map_err(E::custom)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut servers = Vec::new();
        while let Some(server) = seq.next_element()? {
            servers.push(server);
        }
        Ok(servers)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }
}
