//! Recurring jobs, as the operator declares them.
//!
//! Invariant: a field is typed here; whether a cron expression or a time zone exists is decided by who computes run
//! times. Exactly one of `cron`, `every`, `after` is checked by `relations`, so that it is reported with the rest.
//!
//! Not here: run times and firing.

use std::time::Duration;

use naq_models::{Missed, Overlap, QueueName, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{serde_forms, text};

/// `schedules.<id>`: one recurring job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The kind of the jobs.
    pub kind: String,
    /// Their args: an object by name or a list by position.
    #[serde(default = "no_args")]
    pub args: serde_json::Value,
    /// Their queue; unset means `queues.default`.
    #[serde(default)]
    pub queue: Option<QueueName>,
    /// A cron expression with 5 or 6 fields.
    #[serde(default)]
    pub cron: Option<String>,
    /// The IANA time zone of `cron`; unset means UTC.
    #[serde(default)]
    pub tz: Option<String>,
    /// A fixed rate.
    #[serde(default, with = "serde_forms::optional_duration")]
    pub every: Option<Duration>,
    /// A fixed delay after the last run ended.
    #[serde(default, with = "serde_forms::optional_duration")]
    pub after: Option<Duration>,
    /// How many runs; unset means no end.
    #[serde(default)]
    pub repeat: Option<u64>,
    /// No run before this time.
    #[serde(default)]
    pub start: Option<Timestamp>,
    /// No run after this time.
    #[serde(default)]
    pub end: Option<Timestamp>,
    /// What happens to runs that were due while nothing was up.
    #[serde(default, deserialize_with = "missed")]
    pub missed: Missed,
    /// What happens when the last run still runs.
    #[serde(default, deserialize_with = "overlap")]
    pub overlap: Overlap,
}

fn no_args() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

fn missed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Missed, D::Error> {
    text::closed(deserializer, Missed::WORDS)
}

fn overlap<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Overlap, D::Error> {
    text::closed(deserializer, Overlap::WORDS)
}
