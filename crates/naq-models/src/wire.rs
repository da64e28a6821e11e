//! The wire format: how a [`Job`] is stored in a queue.
//!
//! Invariant: JSON always; with feature `bincode` also the compact form behind a leading byte that no JSON text starts
//! with, both readable at any time. Where a message lies (its [`Address`]) wins over what it says of itself. Decoding
//! never panics and never recurses into `args`. The field list is `docs/protocol.md`.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};

use crate::{
    Job, JobError, JobId, OnDependencyFailure, Priority, QueueName, RawJson, RetryPolicy, RetryStrategy, Timestamp,
    Unique, duration::Seconds, retry::DelayForm,
};

#[cfg(feature = "bincode")]
mod binary;

/// The version of the envelope that this crate writes and reads.
pub const VERSION: u64 = 1;

/// The first byte of a job in bincode. JSON text starts with `{` or white space.
pub const BINCODE_MARK: u8 = 0x01;

/// How new jobs are written. Reading accepts every form the crate was built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WireFormat {
    /// One UTF-8 JSON object: readable by people and any language.
    #[default]
    Json,
    /// Compact; needs feature `bincode` on every reader.
    Bincode,
}

impl FromStr for WireFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "bincode" => Ok(Self::Bincode),
            _ => Err(format!("{text:?} is not a serializer: json or bincode")),
        }
    }
}

/// Where a stored job lies; the store knows this without reading the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The job's id.
    pub id: JobId,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority.
    pub priority: Priority,
    /// When the store took it: the default of `enqueued_at`.
    pub stored_at: Timestamp,
}

/// The longest kind of a job, in bytes: it goes with the job through headers, logs and metrics.
pub const MAX_KIND: usize = 256;

/// Why bytes are not a job.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON of an envelope; the message names line and column.
    #[error("not a job envelope: {0}")]
    Json(#[source] serde_json::Error),
    /// An envelope of a later version.
    #[error("envelope version {found} is not known here (this naq reads version {VERSION})")]
    Version {
        /// The version found.
        found: u64,
    },
    /// `args` is neither an object nor an array.
    #[error("args must be an object or an array")]
    Args,
    /// The kind is longer than [`MAX_KIND`] bytes.
    #[error("the kind has {length} bytes, and at most {MAX_KIND} are read")]
    Kind {
        /// Its length, in bytes.
        length: usize,
    },
    /// Bincode, but this program was built without it. Not the job's fault: it must be handed back, not dead-lettered.
    #[error("the job is stored in bincode and this program was built without the feature `bincode`")]
    BincodeNotBuilt,
    /// Bincode that does not decode.
    #[error("not a bincode job: {0}")]
    Bincode(String),
}

/// Why a job cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Bincode was asked for and this program was built without it.
    #[error("serialization.job_serializer is \"bincode\" and this program was built without the feature `bincode`")]
    BincodeNotBuilt,
}

/// Bytes of a usual envelope without its arguments, with room to spare: a buffer that grows is copied.
const ENVELOPE: usize = 384;

/// Writes a job.
///
/// # Errors
/// Only if `format` is bincode and the crate was built without it.
pub fn encode(job: &Job, format: WireFormat) -> Result<Vec<u8>, EncodeError> {
    match format {
        WireFormat::Json => {
            let mut text = Vec::with_capacity(ENVELOPE + job.args.get().len());
            serde_json::to_writer(&mut text, job).expect("a job holds only strings, finite numbers and valid JSON");
            Ok(text)
        }
        #[cfg(feature = "bincode")]
        WireFormat::Bincode => Ok(binary::encode(job)),
        #[cfg(not(feature = "bincode"))]
        WireFormat::Bincode => Err(EncodeError::BincodeNotBuilt),
    }
}

/// Reads a job that lies at `address`. What the address says wins over the body.
///
/// # Errors
/// If the bytes are no job; see [`DecodeError`].
pub fn decode(bytes: &[u8], address: &Address) -> Result<Job, DecodeError> {
    if bytes.first() == Some(&BINCODE_MARK) {
        #[cfg(feature = "bincode")]
        return binary::decode(&bytes[1..], address);
        #[cfg(not(feature = "bincode"))]
        return Err(DecodeError::BincodeNotBuilt);
    }
    let draft: Draft = serde_json::from_slice(bytes).map_err(DecodeError::Json)?;
    draft.into_job(address)
}

impl Serialize for Job {
    /// Writes what a reader needs; a field that has its default is left out, except those an operator looks for.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("v", &VERSION)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("kind", &self.kind)?;
        map.serialize_entry("queue", &self.queue)?;
        map.serialize_entry("args", &self.args)?;
        map.serialize_entry("priority", &self.priority)?;
        map.serialize_entry("enqueued_at", &self.enqueued_at)?;
        map.serialize_entry("run_at", &self.run_at)?;
        map.serialize_entry("attempt", &self.attempt)?;
        policy_entries(self, &mut map)?;
        if !self.depends_on.is_empty() {
            map.serialize_entry("depends_on", &self.depends_on)?;
        }
        if !self.depends_on.is_empty() || self.on_dependency_failure != OnDependencyFailure::default() {
            map.serialize_entry("on_dependency_failure", &self.on_dependency_failure)?;
        }
        if let Some(unique) = &self.unique {
            map.serialize_entry("unique", unique)?;
        }
        if let Some(schedule) = &self.schedule_id {
            map.serialize_entry("schedule_id", schedule)?;
        }
        map.serialize_entry("run", &self.run)?;
        map.serialize_entry("gen", &self.generation)?;
        if let Some(error) = &self.last_error {
            map.serialize_entry("last_error", error)?;
        }
        if !self.meta.is_empty() {
            map.serialize_entry("meta", &self.meta)?;
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// How it is retried, how long it may run and how long its result is kept.
fn policy_entries<M: SerializeMap>(job: &Job, map: &mut M) -> Result<(), M::Error> {
    let (retry, usual) = (&job.retry, RetryPolicy::default());
    map.serialize_entry("max_retries", &retry.max_retries)?;
    if retry.strategy != usual.strategy {
        map.serialize_entry("retry_strategy", &retry.strategy)?;
    }
    if retry.delay != usual.delay {
        map.serialize_entry("retry_delay", &delay_form(&retry.delay))?;
    }
    if retry.max_delay != usual.max_delay {
        map.serialize_entry("retry_max_delay", &Seconds(retry.max_delay))?;
    }
    if retry.jitter != usual.jitter && retry.jitter.is_finite() {
        map.serialize_entry("retry_jitter", &retry.jitter)?;
    }
    for (name, list) in [("retry_on", &retry.retry_on), ("ignore_on", &retry.ignore_on)] {
        if !list.is_empty() {
            map.serialize_entry(name, list)?;
        }
    }
    map.serialize_entry("timeout", &Seconds(job.timeout))?;
    map.serialize_entry("result_ttl", &Seconds(job.result_ttl))?;
    Ok(())
}

/// Writes what all runs of a schedule share: the envelope without `v`, identity, times and counts.
pub(crate) fn serialize_shared<S: Serializer>(job: &Job, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("kind", &job.kind)?;
    map.serialize_entry("queue", &job.queue)?;
    map.serialize_entry("args", &job.args)?;
    map.serialize_entry("priority", &job.priority)?;
    policy_entries(job, &mut map)?;
    if let Some(unique) = &job.unique {
        map.serialize_entry("unique", unique)?;
    }
    if !job.meta.is_empty() {
        map.serialize_entry("meta", &job.meta)?;
    }
    for (name, value) in &job.extra {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

/// Reads what [`serialize_shared`] wrote; everything but `kind` and `args` may be missing.
pub(crate) fn deserialize_shared<'de, D: Deserializer<'de>>(id: JobId, deserializer: D) -> Result<Job, D::Error> {
    let text = RawJson::deserialize(deserializer)?;
    let own: SelfAddress = text.to().map_err(D::Error::custom)?;
    let mut draft: Draft = text.to().map_err(D::Error::custom)?;
    draft.version.get_or_insert(VERSION);
    let address = Address {
        id,
        queue: own.queue.unwrap_or_default(),
        priority: own.priority.unwrap_or_default(),
        stored_at: Timestamp::EPOCH,
    };
    draft.into_job(&address).map_err(D::Error::custom)
}

fn delay_form(delays: &[Duration]) -> DelayForm {
    match delays {
        [one] => DelayForm::One(Seconds(*one)),
        list => DelayForm::List(list.iter().copied().map(Seconds).collect()),
    }
}

/// An envelope as it came: everything may be missing.
#[derive(Debug, Default)]
struct Draft {
    version: Option<u64>,
    kind: Option<String>,
    args: Option<RawJson>,
    enqueued_at: Option<Timestamp>,
    run_at: Option<Timestamp>,
    attempt: Option<u32>,
    max_retries: Option<u32>,
    retry_strategy: Option<RetryStrategy>,
    retry_delay: Option<DelayForm>,
    retry_max_delay: Option<Seconds>,
    retry_jitter: Option<f64>,
    retry_on: Option<Vec<String>>,
    ignore_on: Option<Vec<String>>,
    timeout: Option<Seconds>,
    result_ttl: Option<Seconds>,
    depends_on: Option<Vec<JobId>>,
    on_dependency_failure: Option<OnDependencyFailure>,
    unique: Option<Unique>,
    schedule_id: Option<String>,
    run: Option<u32>,
    generation: Option<u64>,
    last_error: Option<JobError>,
    meta: Option<BTreeMap<String, RawJson>>,
    extra: BTreeMap<String, RawJson>,
}

impl Draft {
    fn into_job(self, address: &Address) -> Result<Job, DecodeError> {
        let missing = |name| DecodeError::Json(serde_json::Error::missing_field(name));
        let version = self.version.ok_or_else(|| missing("v"))?;
        if version != VERSION {
            return Err(DecodeError::Version { found: version });
        }
        let args = self.args.ok_or_else(|| missing("args"))?;
        if !args.is_object() && !args.is_array() {
            return Err(DecodeError::Args);
        }
        let kind = self.kind.ok_or_else(|| missing("kind"))?;
        if kind.len() > MAX_KIND {
            return Err(DecodeError::Kind { length: kind.len() });
        }
        let usual = RetryPolicy::default();
        let mut job = Job::new(address.id.clone(), kind, args, self.enqueued_at.unwrap_or(address.stored_at));
        job.queue = address.queue.clone();
        job.priority = address.priority;
        job.run_at = self.run_at;
        job.attempt = self.attempt.unwrap_or(1).max(1);
        job.retry = RetryPolicy {
            max_retries: self.max_retries.unwrap_or(usual.max_retries),
            strategy: self.retry_strategy.unwrap_or_default(),
            delay: self.retry_delay.map_or(usual.delay, Vec::from),
            max_delay: self.retry_max_delay.map_or(usual.max_delay, |s| s.0),
            jitter: self.retry_jitter.unwrap_or(usual.jitter),
            retry_on: self.retry_on.unwrap_or_default(),
            ignore_on: self.ignore_on.unwrap_or_default(),
        };
        job.timeout = self.timeout.map_or(job.timeout, |s| s.0);
        job.result_ttl = self.result_ttl.map_or(job.result_ttl, |s| s.0);
        job.depends_on = self.depends_on.unwrap_or_default();
        job.on_dependency_failure = self.on_dependency_failure.unwrap_or_default();
        job.unique = self.unique;
        job.schedule_id = self.schedule_id;
        job.run = self.run.unwrap_or(1).max(1);
        job.generation = self.generation.unwrap_or(0);
        job.last_error = self.last_error;
        job.meta = self.meta.unwrap_or_default();
        job.extra = self.extra;
        Ok(job)
    }
}

impl<'de> Deserialize<'de> for Draft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DraftVisitor)
    }
}

/// The name of a field. Of serde's own types `Cow` copies every name, and `&str` takes none with an escape in it.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(name.to_owned())))
    }
}

/// Reads by hand because serde's `flatten` cannot keep raw JSON text.
struct DraftVisitor;

impl<'de> Visitor<'de> for DraftVisitor {
    type Value = Draft;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job envelope (a JSON object)")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Draft, A::Error> {
        let mut draft = Draft::default();
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "v" => draft.version = map.next_value()?,
                "kind" => draft.kind = map.next_value()?,
                "args" => draft.args = Some(map.next_value()?),
                // The address says these.
                "id" | "queue" | "priority" => {
                    map.next_value::<IgnoredAny>()?;
                }
                "enqueued_at" => draft.enqueued_at = map.next_value()?,
                "run_at" => draft.run_at = map.next_value()?,
                "attempt" => draft.attempt = map.next_value()?,
                "max_retries" => draft.max_retries = map.next_value()?,
                "retry_strategy" => draft.retry_strategy = map.next_value()?,
                "retry_delay" => draft.retry_delay = map.next_value()?,
                "retry_max_delay" => draft.retry_max_delay = map.next_value()?,
                "retry_jitter" => draft.retry_jitter = map.next_value()?,
                "retry_on" => draft.retry_on = map.next_value()?,
                "ignore_on" => draft.ignore_on = map.next_value()?,
                "timeout" => draft.timeout = map.next_value()?,
                "result_ttl" => draft.result_ttl = map.next_value()?,
                "depends_on" => draft.depends_on = map.next_value()?,
                "on_dependency_failure" => draft.on_dependency_failure = map.next_value()?,
                "unique" => draft.unique = map.next_value()?,
                "schedule_id" => draft.schedule_id = map.next_value()?,
                "run" => draft.run = map.next_value()?,
                "gen" => draft.generation = map.next_value()?,
                "last_error" => draft.last_error = map.next_value()?,
                "meta" => draft.meta = map.next_value()?,
                _ => {
                    draft.extra.insert(key.into_owned(), map.next_value()?);
                }
            }
        }
        Ok(draft)
    }
}

/// What an envelope says of its own address.
#[derive(Deserialize)]
struct SelfAddress {
    id: Option<JobId>,
    queue: Option<QueueName>,
    priority: Option<Priority>,
}

/// The envelope a producer hands in as one line of a bulk file: its own `id`, `queue` and `priority` count.
///
/// # Errors
/// If the text is no envelope, or names an invalid id, queue or priority.
pub fn decode_submission(text: &[u8], fallback: Address) -> Result<Job, DecodeError> {
    let own: SelfAddress = serde_json::from_slice(text).map_err(DecodeError::Json)?;
    let address = Address {
        id: own.id.unwrap_or(fallback.id),
        queue: own.queue.unwrap_or(fallback.queue),
        priority: own.priority.unwrap_or(fallback.priority),
        stored_at: fallback.stored_at,
    };
    let draft: Draft = serde_json::from_slice(text).map_err(DecodeError::Json)?;
    draft.into_job(&address)
}

#[cfg(test)]
mod tests;
