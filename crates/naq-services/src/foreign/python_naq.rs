//! What the Python NAQ stores: jobs in a stream, records of delayed and recurring jobs in a bucket.
//!
//! Invariant: pure: bytes in, a naq job or a reason out. Read from the source of NAQ 0.1.3 and the newest after it:
//! JSON payloads of its `JsonSerializer`, bare or wrapped with a checksum, and pickled records around such a payload.
//!
//! Not here: reading and removing (`streams`). Pickled and MessagePack payloads are not read at all.

use std::{borrow::Cow, collections::BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use naq_models::{RawJson, RetryStrategy, Schedule, Timestamp};
use serde::{Deserialize, de::IgnoredAny};
use sha2::Digest;

use super::{
    Left, LeftReason, literal,
    mapping::{self, Incoming, Kinds, Recurrence},
    pickle::{self, Value},
};
use crate::NewJob;

pub(super) mod streams;
#[cfg(test)]
mod tests;

/// A payload with what proves that it is whole.
#[derive(Deserialize)]
struct Wrapped {
    data: String,
    data_encoding: String,
    checksum: Option<String>,
    checksum_algorithm: Option<String>,
}

#[derive(Deserialize)]
struct Payload {
    job_id: String,
    function: String,
    args: RawJson,
    kwargs: RawJson,
    queue_name: Option<String>,
    max_retries: Option<u32>,
    retry_delay: Option<OneOrMany<f64>>,
    retry_strategy: Option<String>,
    retry_on: Option<Vec<String>>,
    ignore_on: Option<Vec<String>>,
    depends_on: Option<OneOrMany<String>>,
    result_ttl: Option<f64>,
    timeout: Option<f64>,
}

#[derive(Deserialize)]
struct Failed {
    job_id: String,
    function_str: String,
    args_repr: String,
    kwargs_repr: String,
    queue_name: Option<String>,
    max_retries: Option<u32>,
    retry_delay: Option<OneOrMany<f64>>,
    error: Option<String>,
    traceback: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> From<OneOrMany<T>> for Vec<T> {
    fn from(values: OneOrMany<T>) -> Self {
        match values {
            OneOrMany::One(value) => vec![value],
            OneOrMany::Many(values) => values,
        }
    }
}

/// A job of the stream of jobs. It does not wait for jobs that have `completed` there: their results stay there.
pub(super) fn queued(payload: &[u8], kinds: &Kinds, completed: &BTreeSet<String>) -> Result<Incoming, Left> {
    let mut payload = read_payload(payload)?;
    let depends_on = payload.depends_on.take().map(Vec::from).unwrap_or_default();
    let open = depends_on.into_iter().filter(|id| !completed.contains(id)).collect();
    payload.depends_on = Some(OneOrMany::Many(open));
    Ok(Incoming::Job(Box::new(job(payload, kinds)?)))
}

/// The jobs that a job of the stream waits for, as NAQ names them.
pub(super) fn dependencies(payload: &[u8]) -> Vec<String> {
    read_payload(payload).ok().and_then(|payload| payload.depends_on).map(Vec::from).unwrap_or_default()
}

/// A record of the bucket of scheduled jobs, at `now`.
pub(super) fn scheduled(record: &[u8], kinds: &Kinds, now: Timestamp) -> Result<Incoming, Left> {
    let malformed = |what: &str| Left::new(LeftReason::NotAJob, what);
    if !pickle::is_pickle(record) {
        return Err(malformed("no record of NAQ's scheduler"));
    }
    let record = match pickle::read(record) {
        Ok(Value::Dict(record)) => record,
        Ok(_) => return Err(malformed("the record is no dictionary")),
        Err(error) => return Err(malformed(&error.to_string())),
    };
    let Some(Value::Bytes(payload)) = record.get("_orig_job_payload") else {
        return Err(malformed("the record holds no job"));
    };
    let number = |name: &str| match record.get(name) {
        Some(Value::Float(number)) => Some(*number),
        #[expect(clippy::cast_precision_loss, reason = "a time or a number of seconds")]
        Some(Value::Int(number)) => Some(*number as f64),
        _ => None,
    };
    let paused = match record.get("status") {
        Some(Value::Text(status)) => match status.to_ascii_lowercase().as_str() {
            "active" => false,
            "paused" => true,
            ended => return Err(Left::new(LeftReason::Ended, format!("it is {ended}"))),
        },
        _ => return Err(malformed("the record has no status")),
    };
    let due = ["next_run_utc", "scheduled_timestamp_utc", "scheduled_timestamp"].into_iter().find_map(number);
    let due = due.map(mapping::unix_time).transpose()?;
    let payload = read_payload(payload)?;
    let id = payload.job_id.clone();
    let job = job(payload, kinds)?;
    let schedule = match (record.get("cron"), number("interval_seconds")) {
        (Some(Value::Text(expression)), _) => Schedule::cron(cron(expression)),
        (_, Some(interval)) => Schedule::every(mapping::seconds("an interval", interval)?),
        _ if paused => return Err(Left::new(LeftReason::Paused, "a delayed job")),
        _ => return due.map(|due| Incoming::Job(Box::new(job.at(due)))).ok_or_else(|| malformed("it has no time")),
    };
    let runs = match record.get("repeat") {
        Some(Value::Int(0)) => return Err(Left::new(LeftReason::Ended, "no run is left")),
        Some(Value::Int(runs)) => Some(u64::try_from(*runs).map_err(|_| malformed("a negative repeat"))?),
        _ => None,
    };
    mapping::recurring(&id, job, Recurrence { schedule, next_run: due, runs, paused }, now)
}

/// A dead letter of the stream of failed jobs. NAQ keeps the function's bare name and its arguments as Python shows them.
pub(super) fn failed(payload: &[u8], kinds: &Kinds, failed_at: Timestamp) -> Result<Incoming, Left> {
    let payload = unwrapped(payload)?;
    let Failed { job_id, function_str, args_repr, kwargs_repr, queue_name, max_retries, retry_delay, error, traceback } =
        serde_json::from_slice(&payload).map_err(|error| Left::new(LeftReason::NotAJob, error.to_string()))?;
    let read = |shown: &str| {
        let value = literal::read(shown).map_err(|error| Left::new(LeftReason::ArgsNotKept, error.to_string()))?;
        RawJson::from_value(&value).map_err(|error| Left::new(LeftReason::ArgsNotKept, error.to_string()))
    };
    let args = mapping::args_of(read(&args_repr)?, read(&kwargs_repr)?)?;
    let job = NewJob::new(mapping::kind_of(&function_str, kinds), args)
        .job_id(mapping::job_id(&job_id)?)
        .max_retries(max_retries.unwrap_or(0));
    let job = with_delays(in_queue(job, queue_name.as_deref()), retry_delay)?;
    let error = mapping::failure(error, traceback, failed_at);
    Ok(Incoming::Failed(Box::new(job), error))
}

fn job(payload: Payload, kinds: &Kinds) -> Result<NewJob, Left> {
    let mut job =
        NewJob::new(mapping::kind_of(&payload.function, kinds), mapping::args_of(payload.args, payload.kwargs)?)
            .job_id(mapping::job_id(&payload.job_id)?)
            .max_retries(payload.max_retries.unwrap_or(0))
            .retry_strategy(strategy(payload.retry_strategy.as_deref())?);
    job = with_delays(in_queue(job, payload.queue_name.as_deref()), payload.retry_delay)?;
    for id in payload.depends_on.map(Vec::from).unwrap_or_default() {
        job = job.depends_on([mapping::job_id(&id)?]);
    }
    if let Some(classes) = payload.retry_on {
        job = job.retry_on(classes.iter().map(|class| mapping::class_name(class)));
    }
    if let Some(classes) = payload.ignore_on {
        job = job.ignore_on(classes.iter().map(|class| mapping::class_name(class)));
    }
    if let Some(ttl) = payload.result_ttl {
        job = job.result_ttl(mapping::seconds("a result_ttl", ttl)?);
    }
    // NAQ takes no time for no limit.
    if let Some(timeout) = payload.timeout.filter(|timeout| *timeout != 0.0) {
        job = job.timeout(mapping::seconds("a timeout", timeout)?);
    }
    Ok(job)
}

fn in_queue(job: NewJob, queue: Option<&str>) -> NewJob {
    match queue {
        Some(queue) => job.queue(queue),
        None => job,
    }
}

fn with_delays(job: NewJob, delays: Option<OneOrMany<f64>>) -> Result<NewJob, Left> {
    let Some(delays) = delays else { return Ok(job) };
    let delays: Vec<f64> = delays.into();
    let delays = delays.into_iter().map(|delay| mapping::seconds("a retry_delay", delay));
    Ok(job.retry_delays(delays.collect::<Result<Vec<_>, Left>>()?))
}

/// Their `linear` waits the same each time.
fn strategy(name: Option<&str>) -> Result<RetryStrategy, Left> {
    match name {
        None | Some("linear") => Ok(RetryStrategy::Fixed),
        Some("exponential") => Ok(RetryStrategy::Exponential),
        Some(other) => Err(Left::new(LeftReason::NotAJob, format!("retry strategy {other:?}"))),
    }
}

/// Six fields end with the seconds there, and begin with them here.
fn cron(expression: &str) -> String {
    let mut fields: Vec<&str> = expression.split_whitespace().collect();
    if fields.len() == 6 {
        fields.rotate_right(1);
    }
    fields.join(" ")
}

fn read_payload(bytes: &[u8]) -> Result<Payload, Left> {
    serde_json::from_slice(&unwrapped(bytes)?).map_err(|error| Left::new(LeftReason::NotAJob, error.to_string()))
}

/// The JSON text of a payload, out of its wrapping if it has one.
fn unwrapped(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Left> {
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(bytes) {
        let what = if pickle::is_pickle(bytes) { "a pickle".to_owned() } else { error.to_string() };
        return Err(Left::new(LeftReason::NotJson, what));
    }
    let Ok(Wrapped { data, data_encoding, checksum, checksum_algorithm }) = serde_json::from_slice(bytes) else {
        return Ok(Cow::Borrowed(bytes));
    };
    let damaged = |what: String| Left::new(LeftReason::Damaged, what);
    if data_encoding != "base64" {
        return Err(damaged(format!("encoded as {data_encoding:?}")));
    }
    let data = STANDARD.decode(data).map_err(|error| damaged(error.to_string()))?;
    if let Some(checksum) = checksum {
        let algorithm = checksum_algorithm.unwrap_or_else(|| "sha256".to_owned()).to_ascii_lowercase();
        let sum: Vec<u8> = match algorithm.as_str() {
            "sha256" => sha2::Sha256::digest(&data).to_vec(),
            "sha512" => sha2::Sha512::digest(&data).to_vec(),
            other => return Err(damaged(format!("its checksum by {other} cannot be checked"))),
        };
        let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        if !hex.eq_ignore_ascii_case(&checksum) {
            return Err(damaged("its checksum is of other data".to_owned()));
        }
    }
    serde_json::from_slice::<IgnoredAny>(&data)
        .map_err(|error| Left::new(LeftReason::NotJson, error.to_string()))
        .map(|_| Cow::Owned(data))
}
