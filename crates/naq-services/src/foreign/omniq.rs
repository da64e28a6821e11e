//! What OmniQ stores: a task each, in a table of SQLite or in a file of its own.
//!
//! Invariant: pure: a task in, a naq job or a reason out. Read from the newest source of OmniQ 0.1.0: the tables `tasks`
//! and `results`, and the JSON of its `JSONSerializer` and `MsgspecSerializer`. Times without a zone are UTC.
//!
//! Not here: reading and removing (`table`, `files`). Pickled tasks are not read at all.

use std::time::Duration;

use naq_models::{RawJson, RetryStrategy, Schedule, Timestamp};
use serde::Deserialize;

use super::{
    Left, LeftReason,
    mapping::{self, Incoming, Kinds, Recurrence},
};
use crate::NewJob;

pub(super) mod files;
#[cfg(feature = "sqlite")]
pub(super) mod table;
#[cfg(test)]
mod tests;

/// OmniQ waits 1, 2, 4 … seconds before a retry, a minute at most, each varied by a quarter.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const RETRY_MAX_DELAY: Duration = Duration::from_secs(60);
const RETRY_JITTER: f64 = 0.25;

/// A task, however it was stored.
#[derive(Debug, Deserialize)]
pub(super) struct Task {
    id: String,
    func_path: String,
    args: RawJson,
    kwargs: RawJson,
    status: String,
    schedule: Timing,
    max_retries: Option<u32>,
    timeout: Option<f64>,
    attempts: Option<u32>,
    updated_at: Option<String>,
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Timing {
    eta: Option<String>,
    interval: Option<Interval>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Interval {
    Seconds(f64),
    Delta {
        total_seconds: f64,
    },
    /// ISO 8601, as msgspec writes it.
    Text(String),
}

/// Why a task failed, as far as its own record says.
#[derive(Debug, Deserialize)]
struct Failure {
    message: Option<String>,
    traceback: Option<String>,
}

/// What a task becomes at `now`. `told` is what its result says of a failure.
pub(super) fn task(task: Task, told: Option<String>, kinds: &Kinds, now: Timestamp) -> Result<Incoming, Left> {
    let Task { id, func_path, args, kwargs, status, schedule, max_retries, timeout, attempts, updated_at, error } =
        task;
    let failed = match status.as_str() {
        "PENDING" | "RETRYING" => false,
        "FAILED" => true,
        "RUNNING" => return Err(Left::new(LeftReason::Running, "")),
        ended => return Err(Left::new(LeftReason::Ended, format!("it is {ended}"))),
    };
    // What a failed task may still be tried is decided anew by whoever gives it a new life.
    let used = if failed { 0 } else { attempts.unwrap_or(0) };
    let mut job = NewJob::new(mapping::kind_of(&func_path, kinds), mapping::args_of(args, kwargs)?)
        .job_id(mapping::job_id(&id)?)
        .max_retries(max_retries.unwrap_or(0).saturating_sub(used))
        .retry_strategy(RetryStrategy::Exponential)
        .retry_delay(RETRY_DELAY)
        .retry_max_delay(RETRY_MAX_DELAY)
        .retry_jitter(RETRY_JITTER);
    if let Some(timeout) = timeout.filter(|timeout| *timeout != 0.0) {
        job = job.timeout(mapping::seconds("a timeout", timeout)?);
    }
    if failed {
        let failed_at = updated_at.as_deref().map(time).transpose()?.unwrap_or(now);
        let (message, backtrace) = error.map_or((None, None), |error| (error.message, error.traceback));
        return Ok(Incoming::Failed(Box::new(job), mapping::failure(message.or(told), backtrace, failed_at)));
    }
    let eta = schedule.eta.as_deref().map(time).transpose()?;
    match schedule.interval {
        Some(interval) => {
            let schedule = Schedule::every(period(interval)?);
            // Without a time the first run is due at once.
            let recurrence = Recurrence { schedule, next_run: Some(eta.unwrap_or(now)), runs: None, paused: false };
            mapping::recurring(&id, job, recurrence, now)
        }
        None => Ok(Incoming::Job(Box::new(match eta {
            Some(eta) => job.at(eta),
            None => job,
        }))),
    }
}

/// A time as Python's `isoformat` writes it.
fn time(text: &str) -> Result<Timestamp, Left> {
    let text = text.replacen(' ', "T", 1);
    text.parse()
        .or_else(|_| format!("{text}Z").parse())
        .map_err(|_| Left::new(LeftReason::NotAJob, format!("{text:?} is no time")))
}

fn period(interval: Interval) -> Result<Duration, Left> {
    let seconds = match interval {
        Interval::Seconds(seconds) | Interval::Delta { total_seconds: seconds } => Some(seconds),
        Interval::Text(text) => iso_seconds(&text),
    };
    mapping::seconds("an interval", seconds.unwrap_or(f64::NAN))
}

/// `P1DT2.5S`: days and seconds are all that msgspec writes.
fn iso_seconds(text: &str) -> Option<f64> {
    let (days, time) = text.strip_prefix('P')?.split_once('T').unwrap_or((text.strip_prefix('P')?, ""));
    let number = |part: &str, unit| if part.is_empty() { Some(0.0) } else { part.strip_suffix(unit)?.parse().ok() };
    let (days, seconds): (f64, f64) = (number(days, 'D')?, number(time, 'S')?);
    Some(days * 86_400.0 + seconds)
}
