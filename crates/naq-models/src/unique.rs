//! Unique keys: where a key lies, what it holds ([`UniqueHolder`]), how one is made of arguments, what is refused.
//!
//! Invariant: pure, and part of the protocol: every producer, in any language, has to find the same key for the same job.
//! A computed key is made of kind, queue and arguments; a given one is taken as it is, across kinds and queues.
//!
//! Not here: taking and releasing a key (naq-services).

use std::{collections::BTreeMap, fmt, fmt::Write as _, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{Job, JobId, QueueName, RawJson, Timestamp, Unique, UniqueWhile};

/// The longest key, in bytes.
pub const MAX_KEY: usize = 1024;
/// The longest key that stands in the store as it is, in bytes; of a longer one its hash does.
const MAX_PLAIN: usize = 128;
/// What stands before every name; beside them lie the keys of ids.
const PREFIX: &str = "key.";
/// Arguments that are nested deeper than this are compared as they are written below it.
const MAX_DEPTH: usize = 64;

/// What a producer wants where another job has the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// Nothing is stored; the job that has the key is the answer.
    #[default]
    Existing,
    /// The job that has the key is cancelled and this one takes its place; one that runs or has ended is the answer, as
    /// with [`Existing`](Self::Existing).
    Replace,
    /// Nothing is stored, and that is an error.
    Error,
}

/// Why a unique key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UniqueError {
    /// The key is empty or longer than [`MAX_KEY`].
    #[error("a unique key has 1 to {MAX_KEY} bytes, this one has {length}")]
    Length {
        /// Its length in bytes.
        length: usize,
    },
    /// `while = ttl` without a time over zero.
    #[error("a unique key that holds for a time needs that time: a ttl over zero")]
    TtlMissing,
    /// A time, and a `while` that does not look at it.
    #[error("the ttl of a unique key belongs to while = \"ttl\", not to while = \"{holds}\"")]
    TtlUnused {
        /// What was given.
        holds: UniqueWhile,
    },
}

impl Unique {
    /// Whether the parts fit together.
    ///
    /// # Errors
    /// See [`UniqueError`].
    pub fn check(&self) -> Result<(), UniqueError> {
        if self.key.is_empty() || self.key.len() > MAX_KEY {
            return Err(UniqueError::Length { length: self.key.len() });
        }
        match (self.holds, self.ttl) {
            (UniqueWhile::Ttl, Some(ttl)) if !ttl.0.is_zero() => Ok(()),
            (UniqueWhile::Ttl, _) => Err(UniqueError::TtlMissing),
            (_, None) => Ok(()),
            (holds, Some(_)) => Err(UniqueError::TtlUnused { holds }),
        }
    }

    /// Where the key lies in the bucket of unique keys: `key.<key>`, or `key.=<SHA-256 of the key, in hex>` for one that
    /// is long or has characters which a store's key cannot have.
    #[must_use]
    pub fn place(&self) -> String {
        let key = &self.key;
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'=' | b'/' | b'.');
        let plain = key.len() <= MAX_PLAIN
            && key.bytes().all(allowed)
            && !key.starts_with('=')
            && key.split('.').all(|token| !token.is_empty());
        if plain { format!("{PREFIX}{key}") } else { format!("{PREFIX}={}", hex(key)) }
    }

    /// The [`place`](Self::place) of a key that the job's end frees.
    #[must_use]
    pub fn freed_at_end(&self) -> Option<String> {
        (self.holds != UniqueWhile::Ttl).then(|| self.place())
    }
}

impl Job {
    /// Where the unique key lies that this job's end frees, if there is one.
    #[must_use]
    pub fn key_freed_at_end(&self) -> Option<String> {
        self.unique.as_ref().and_then(Unique::freed_at_end)
    }
}

/// What a unique key holds: one JSON object. Only `id` and `since` are required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniqueHolder {
    /// The job that has the key.
    pub id: JobId,
    /// When it took it: one whose job is not there half a minute later has no producer any more.
    pub since: Timestamp,
    /// When the key is free whatever became of the job.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// How long it holds.
    #[serde(rename = "while", default)]
    pub holds: UniqueWhile,
    /// The job's queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// The life that has it, as in the envelope.
    #[serde(rename = "gen", default)]
    pub generation: u64,
    /// The job whose place this one takes, and which is to be cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<JobId>,
    /// The job is known to have been stored: of a key that holds for a time, because its job may be gone before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stored: bool,
}

impl UniqueHolder {
    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a holder has only names, numbers and times")
    }

    /// Reads it.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Whether the value of a key names this job: only then may the job's end free it.
    #[must_use]
    pub fn names(value: &[u8], id: &JobId) -> bool {
        Self::decode(value).is_ok_and(|holder| holder.id == *id)
    }
}

/// The key of a job by its arguments: all of them, or the named ones. Two jobs of one kind and queue have the same key if
/// these arguments are equal, in whatever order the names stand and however they are spaced.
///
/// # Errors
/// The name of an argument that is not there; any name, if the arguments are not by name.
pub fn key_of_args(kind: &str, queue: &QueueName, args: &RawJson, fields: Option<&[String]>) -> Result<String, String> {
    let chosen = match fields {
        None => canonical(args.get(), 0),
        Some(fields) => {
            let first = || fields.first().cloned().unwrap_or_default();
            let all: BTreeMap<String, &RawValue> = serde_json::from_str(args.get()).map_err(|_| first())?;
            let mut chosen = BTreeMap::new();
            for field in fields {
                chosen.insert(field, *all.get(field).ok_or_else(|| field.clone())?);
            }
            let chosen = serde_json::to_string(&chosen).expect("strings and valid JSON");
            canonical(&chosen, 0)
        }
    };
    Ok(format!("{kind}/{queue}/{}", hex(&chosen)))
}

/// JSON with its names in order and without spaces. Numbers stay as they are written.
fn canonical(json: &str, depth: usize) -> String {
    let inner = |value: &RawValue| canonical(value.get(), depth + 1);
    let read = match json.as_bytes().first() {
        _ if depth == MAX_DEPTH => None,
        Some(b'{') => serde_json::from_str::<BTreeMap<String, &RawValue>>(json).ok().map(|map| {
            let fields = map.iter().map(|(name, value)| format!("{}:{}", quoted(name), inner(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }),
        Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(json).ok().map(|list| {
            let items = list.iter().map(|value| inner(value));
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        }),
        Some(b'"') => serde_json::from_str::<String>(json).ok().map(|text| quoted(&text)),
        _ => None,
    };
    read.unwrap_or_else(|| json.to_owned())
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

fn hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}

/// A closed set of words, as options and command lines write them.
macro_rules! words {
    ($type:ident: $what:literal { $($variant:ident = $word:literal),+ }) => {
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!(concat!("{:?} is not ", $what, ": ", $($word, " "),+), text).trim_end().to_owned()),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}

words!(OnConflict: "an answer to a taken key" { Existing = "existing", Replace = "replace", Error = "error" });
words!(UniqueWhile: "how long a key holds" { Pending = "pending", Active = "active", Ttl = "ttl" });

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::duration::Seconds;

    fn unique(key: &str, holds: UniqueWhile, ttl: Option<u64>) -> Unique {
        Unique { key: key.into(), holds, ttl: ttl.map(|s| Seconds(Duration::from_secs(s))) }
    }

    fn place(key: &str) -> String {
        unique(key, UniqueWhile::Active, None).place()
    }

    fn of(args: &str, fields: Option<&[&str]>) -> Result<String, String> {
        let fields = fields.map(|fields| fields.iter().map(|&f| f.to_owned()).collect::<Vec<_>>());
        let args = RawJson::parse(args).unwrap();
        key_of_args("mail", &QueueName::new("q").unwrap(), &args, fields.as_deref())
    }

    #[test]
    fn places_are_what_other_languages_compute() {
        assert_eq!(place("report-2026.11/x=1"), "key.report-2026.11/x=1");
        // printf 'a b' | sha256sum
        let hashed = "key.=c8687a08aa5d6ed2044328fa6a697ab8e96dc34291e8c2034ae8c38e6fcc6d65";
        assert_eq!(place("a b"), hashed);
        for odd in ["", ".a", "a.", "a..b", "=a", "ä", "a*", "a>", &"x".repeat(129)] {
            let place = place(odd);
            assert!(place.starts_with("key.=") && place.len() == 69, "{odd:?}: {place}");
        }
        assert_ne!(place("A"), place("a"));
    }

    #[test]
    fn keys_of_arguments_are_by_value() {
        let key = of(r#"{"to":"a@b.c","n":{"x":[1,2],"y":null}}"#, None).unwrap();
        assert!(key.starts_with("mail/q/"), "{key}");
        let same = r#"{ "n" : {"y": null, "x":[1, 2]} , "to":"\u0061@b.c" }"#;
        assert_eq!(of(same, None).unwrap(), key);
        for other in [r#"{"to":"a@b.c","n":{"x":[2,1],"y":null}}"#, r#"{"to":"a@b.c"}"#, r#"["a@b.c"]"#, "{}"] {
            assert_ne!(of(other, None).unwrap(), key, "{other}");
        }
        assert_ne!(of("[1e400]", None), of("[1e401]", None), "numbers that no float holds");
        let other_queue =
            key_of_args("mail", &QueueName::new("r").unwrap(), &RawJson::parse("{}").unwrap(), None).unwrap();
        assert_ne!(other_queue, of("{}", None).unwrap());
    }

    #[test]
    fn chosen_fields_are_all_that_counts() {
        let key = of(r#"{"to":"a","subject":"s","n":1}"#, Some(&["to", "subject"])).unwrap();
        assert_eq!(of(r#"{"n":2,"subject":"s","to":"a"}"#, Some(&["subject", "to"])).unwrap(), key);
        assert_ne!(of(r#"{"to":"b","subject":"s","n":1}"#, Some(&["to", "subject"])).unwrap(), key);
        assert_eq!(of(r#"{"to":"a"}"#, Some(&["to", "subjekt"])), Err("subjekt".into()));
        assert_eq!(of(r#"["a"]"#, Some(&["to"])), Err("to".into()), "arguments by position have no names");
    }

    #[test]
    fn deep_arguments_are_compared_without_recursing_for_ever() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_ne!(of(&deep, None).unwrap(), of(&format!("[{deep}]"), None).unwrap());
    }

    #[test]
    fn parts_that_do_not_fit_are_refused() {
        use UniqueWhile::{Active, Pending, Ttl};
        for (holds, ttl) in [(Active, None), (Pending, None), (Ttl, Some(1))] {
            assert_eq!(unique("k", holds, ttl).check(), Ok(()));
        }
        for (bad, why) in [
            (unique("", Active, None), UniqueError::Length { length: 0 }),
            (unique(&"x".repeat(1025), Active, None), UniqueError::Length { length: 1025 }),
            (unique("k", Ttl, None), UniqueError::TtlMissing),
            (unique("k", Ttl, Some(0)), UniqueError::TtlMissing),
            (unique("k", Active, Some(1)), UniqueError::TtlUnused { holds: Active }),
        ] {
            assert_eq!(bad.check(), Err(why));
        }
        assert_eq!(unique("k", Ttl, Some(1)).freed_at_end(), None);
        assert_eq!(unique("k", Pending, None).freed_at_end().as_deref(), Some("key.k"));
    }

    #[test]
    fn a_foreign_holder_needs_only_id_and_time() {
        let text = br#"{"id":"j","since":"2026-11-22T00:00:00.000Z","x_theirs":1}"#;
        let holder = UniqueHolder::decode(text).unwrap();
        assert_eq!((holder.holds, holder.generation, holder.stored), (UniqueWhile::Active, 0, false));
        assert_eq!(UniqueHolder::decode(&holder.encode()).unwrap(), holder);
        assert!(UniqueHolder::names(text, &JobId::new("j").unwrap()));
        assert!(!UniqueHolder::names(text, &JobId::new("k").unwrap()));
        assert!(!UniqueHolder::names(b"junk", &JobId::new("j").unwrap()));
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in [OnConflict::Existing, OnConflict::Replace, OnConflict::Error] {
            assert_eq!(word.to_string().parse(), Ok(word));
        }
        for word in [UniqueWhile::Pending, UniqueWhile::Active, UniqueWhile::Ttl] {
            assert_eq!(word.to_string().parse(), Ok(word));
        }
        assert!("never".parse::<UniqueWhile>().unwrap_err().contains("pending"));
    }
}
