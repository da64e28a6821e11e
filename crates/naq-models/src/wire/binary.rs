//! The bincode form of a job: the one module that names bincode (unmaintained, see `deny.toml`).
//!
//! Invariant: [`BINCODE_MARK`] and then one [`Record`] in bincode's standard configuration. The record is positional, so
//! a change of its fields needs a new leading byte. `args`, `meta` and unknown fields travel as JSON text, because bincode
//! cannot decode what does not describe itself.

use serde::{Deserialize, Serialize};

use super::{Address, BINCODE_MARK, DecodeError, MAX_KIND, VERSION};
use crate::{
    Job, JobError, JobId, OnDependencyFailure, RawJson, RetryPolicy, RetryStrategy, Timestamp, UniqueWhile, duration,
};

/// No job is larger than this in any store; a limit keeps a hostile length from reserving memory.
const MAX_BYTES: usize = 64 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Record {
    version: u64,
    kind: String,
    args: String,
    enqueued_at: i64,
    run_at: Option<i64>,
    attempt: u32,
    max_retries: u32,
    retry_strategy: RetryStrategy,
    retry_delay: Vec<f64>,
    retry_max_delay: f64,
    retry_jitter: f64,
    retry_on: Vec<String>,
    ignore_on: Vec<String>,
    timeout: f64,
    result_ttl: f64,
    depends_on: Vec<JobId>,
    on_dependency_failure: OnDependencyFailure,
    unique: Option<(String, UniqueWhile, Option<f64>)>,
    schedule_id: Option<String>,
    run: u32,
    generation: u64,
    last_error: Option<JobError>,
    meta: String,
    extra: String,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_BYTES>()
}

pub(super) fn encode(job: &Job) -> Vec<u8> {
    let text = |map| serde_json::to_string(map).expect("keys are strings and values valid JSON");
    let record = Record {
        version: VERSION,
        kind: job.kind.clone(),
        args: job.args.get().to_owned(),
        enqueued_at: job.enqueued_at.unix_millis(),
        run_at: job.run_at.map(Timestamp::unix_millis),
        attempt: job.attempt,
        max_retries: job.retry.max_retries,
        retry_strategy: job.retry.strategy,
        retry_delay: job.retry.delay.iter().map(std::time::Duration::as_secs_f64).collect(),
        retry_max_delay: job.retry.max_delay.as_secs_f64(),
        retry_jitter: job.retry.jitter,
        retry_on: job.retry.retry_on.clone(),
        ignore_on: job.retry.ignore_on.clone(),
        timeout: job.timeout.as_secs_f64(),
        result_ttl: job.result_ttl.as_secs_f64(),
        depends_on: job.depends_on.clone(),
        on_dependency_failure: job.on_dependency_failure,
        unique: job.unique.as_ref().map(|u| (u.key.clone(), u.holds, u.ttl.map(|ttl| ttl.0.as_secs_f64()))),
        schedule_id: job.schedule_id.clone(),
        run: job.run,
        generation: job.generation,
        last_error: job.last_error.clone(),
        meta: text(&job.meta),
        extra: text(&job.extra),
    };
    let mut bytes = vec![BINCODE_MARK];
    bincode::serde::encode_into_std_write(&record, &mut bytes, config()).expect("writing to memory cannot fail");
    bytes
}

pub(super) fn decode(bytes: &[u8], address: &Address) -> Result<Job, DecodeError> {
    let (record, read): (Record, usize) =
        bincode::serde::decode_from_slice(bytes, config()).map_err(|e| DecodeError::Bincode(e.to_string()))?;
    if read != bytes.len() {
        return Err(DecodeError::Bincode(format!("{} bytes follow the record", bytes.len() - read)));
    }
    if record.version != VERSION {
        return Err(DecodeError::Version { found: record.version });
    }
    let seconds = |s: f64| duration::from_seconds(s).map_err(|e| DecodeError::Bincode(format!("duration {s}: {e}")));
    let time =
        |ms| Timestamp::from_unix_millis(ms).ok_or_else(|| DecodeError::Bincode(format!("time {ms} is out of range")));
    let args = RawJson::parse(&record.args).map_err(DecodeError::Json)?;
    if !args.is_object() && !args.is_array() {
        return Err(DecodeError::Args);
    }
    if record.kind.len() > MAX_KIND {
        return Err(DecodeError::Kind { length: record.kind.len() });
    }
    let mut job = Job::new(address.id.clone(), record.kind, args, time(record.enqueued_at)?);
    job.queue = address.queue.clone();
    job.priority = address.priority;
    job.run_at = record.run_at.map(time).transpose()?;
    job.attempt = record.attempt.max(1);
    job.retry = RetryPolicy {
        max_retries: record.max_retries,
        strategy: record.retry_strategy,
        delay: record.retry_delay.into_iter().map(seconds).collect::<Result<_, _>>()?,
        max_delay: seconds(record.retry_max_delay)?,
        jitter: record.retry_jitter,
        retry_on: record.retry_on,
        ignore_on: record.ignore_on,
    };
    job.timeout = seconds(record.timeout)?;
    job.result_ttl = seconds(record.result_ttl)?;
    job.depends_on = record.depends_on;
    job.on_dependency_failure = record.on_dependency_failure;
    job.unique = match record.unique {
        None => None,
        Some((key, holds, ttl)) => {
            let ttl = ttl.map(seconds).transpose()?.map(duration::Seconds);
            Some(crate::Unique { key, holds, ttl })
        }
    };
    job.schedule_id = record.schedule_id;
    job.run = record.run.max(1);
    job.generation = record.generation;
    job.last_error = record.last_error;
    job.meta = serde_json::from_str(&record.meta).map_err(DecodeError::Json)?;
    job.extra = serde_json::from_str(&record.extra).map_err(DecodeError::Json)?;
    Ok(job)
}
