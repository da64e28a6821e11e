//! [`ScheduleRecord`]: everything the store keeps of one schedule.
//!
//! Invariant: one JSON object under the schedule's id; unknown fields of the record, its definition and its job survive
//! a round trip. `pending` holds at most [`MAX_PENDING`](super::MAX_PENDING) due times, in order. How a record changes
//! is in `transition`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

use super::{ScheduleDefinition, ScheduleStatus, object::Object};
use crate::{Job, JobId, RawJson, ScheduleId, Timestamp};

/// The version of the record that this crate writes and reads.
const VERSION: u64 = 1;

/// One schedule as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRecord {
    /// Its identity.
    pub id: ScheduleId,
    /// What the user decides.
    pub definition: ScheduleDefinition,
    /// Where it stands.
    pub status: ScheduleStatus,
    /// When it was first defined, or defined again after it had been cancelled.
    pub created_at: Timestamp,
    /// When a person last changed it; fires do not count.
    pub updated_at: Timestamp,
    /// Where the periods of `every` are counted from, if the definition has no start.
    pub anchor: Timestamp,
    /// The next due time. `None` if there is none, or if it follows from the end of the last run.
    pub next: Option<Timestamp>,
    /// Due times whose fire is recorded and whose job may not have been published yet, in order.
    pub pending: Vec<Timestamp>,
    /// How many runs were fired by the timing. Those triggered by hand do not count.
    pub runs: u64,
    /// How many due times did not run: missed, or held back by overlap. Missed ones are counted up to 10 000 each time.
    pub skipped: u64,
    /// The latest due time of a run, by the timing or by hand. It never goes back.
    pub last_due: Option<Timestamp>,
    /// The id of the run that was recorded last.
    pub last_run_id: Option<JobId>,
    /// Fields this version does not know, kept as they came.
    pub extra: BTreeMap<String, RawJson>,
}

impl ScheduleRecord {
    /// The job to publish for a due time of `pending`, enqueued at `now`.
    #[must_use]
    pub fn job(&self, due: Timestamp, now: Timestamp) -> Job {
        self.definition.job.run(&self.id, due, now, self.definition.looks_at_last_run())
    }

    /// The run whose end decides when this schedule is next due: set while an active `after_completion` schedule
    /// waits for it.
    #[must_use]
    pub fn awaits(&self) -> Option<&JobId> {
        let waits =
            self.status == ScheduleStatus::Active && self.next.is_none() && self.definition.timing.follows_completion();
        self.last_run_id.as_ref().filter(|_| waits)
    }

    /// How many runs are left of `repeat`; `None` without limit.
    #[must_use]
    pub fn runs_left(&self) -> Option<u64> {
        self.definition.repeat.map(|repeat| repeat.saturating_sub(self.runs))
    }
}

impl Serialize for ScheduleRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("v", &VERSION)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("next", &self.next)?;
        map.serialize_entry("pending", &self.pending)?;
        map.serialize_entry("runs", &self.runs)?;
        map.serialize_entry("skipped", &self.skipped)?;
        map.serialize_entry("last_due", &self.last_due)?;
        map.serialize_entry("last_run_id", &self.last_run_id)?;
        map.serialize_entry("created_at", &self.created_at)?;
        map.serialize_entry("updated_at", &self.updated_at)?;
        map.serialize_entry("anchor", &self.anchor)?;
        map.serialize_entry("definition", &self.definition)?;
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ScheduleRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;

        let mut object = Object::read(deserializer)?;
        let version: u64 = object.require("v")?;
        if version != VERSION {
            return Err(D::Error::custom(format_args!(
                "schedule version {version} is not known here (this naq reads version {VERSION})"
            )));
        }
        let created_at = object.require("created_at")?;
        Ok(Self {
            id: object.require("id")?,
            definition: object.require("definition")?,
            status: object.require("status")?,
            created_at,
            updated_at: object.take_option("updated_at")?.unwrap_or(created_at),
            anchor: object.take_option("anchor")?.unwrap_or(created_at),
            next: object.take_option("next")?,
            pending: object.take("pending")?,
            runs: object.take("runs")?,
            skipped: object.take("skipped")?,
            last_due: object.take_option("last_due")?,
            last_run_id: object.take_option("last_run_id")?,
            extra: object.rest(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Priority, QueueName, RetryStrategy, Unique, UniqueWhile,
        duration::Seconds,
        schedule::{Missed, Overlap, Schedule},
    };
    use std::time::Duration;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// A record in which every field differs from its default.
    fn full() -> ScheduleRecord {
        let id = ScheduleId::new("nightly").unwrap();
        let args = RawJson::parse(r#"{"to":"a@b.c","n":1e400}"#).unwrap();
        let mut job = Job::new(JobId::new("any").unwrap(), "send_mail", args, at("2026-11-20T10:00:00Z"));
        job.queue = QueueName::new("mail").unwrap();
        job.priority = Priority::new(1).unwrap();
        job.retry.max_retries = 7;
        job.retry.strategy = RetryStrategy::Linear;
        job.retry.delay = [1, 5].map(Duration::from_secs).to_vec();
        job.timeout = Duration::from_millis(1_500);
        job.result_ttl = Duration::from_secs(60);
        let ttl = Some(Seconds(Duration::from_secs(60)));
        job.unique = Some(Unique { key: "k".into(), holds: UniqueWhile::Ttl, ttl });
        job.meta.insert("tenant".into(), RawJson::parse("\"acme\"").unwrap());
        job.extra.insert("x_job".into(), RawJson::parse("[1, 2]").unwrap());
        let mut definition = Schedule::cron("0 3 * * MON-FRI")
            .tz("Europe/Berlin")
            .repeat(100)
            .start(at("2026-11-01T00:00:00Z"))
            .end(at("2027-11-01T00:00:00Z"))
            .missed(Missed::All)
            .overlap(Overlap::Skip)
            .build(job)
            .unwrap();
        definition.extra.insert("x_definition".into(), RawJson::parse(r#"{"deep": 1e400}"#).unwrap());
        ScheduleRecord {
            last_run_id: Some(id.run_id(at("2026-11-20T02:00:00Z"))),
            id,
            definition,
            status: ScheduleStatus::Paused,
            created_at: at("2026-11-19T10:00:00.001Z"),
            updated_at: at("2026-11-19T10:00:00.002Z"),
            anchor: at("2026-11-19T10:00:00.003Z"),
            next: Some(at("2026-11-23T02:00:00Z")),
            pending: vec![at("2026-11-19T02:00:00Z"), at("2026-11-20T02:00:00Z")],
            runs: 12,
            skipped: 3,
            last_due: Some(at("2026-11-20T02:00:00Z")),
            extra: [("x_record".to_owned(), RawJson::parse("null").unwrap())].into(),
        }
    }

    #[test]
    fn golden_record() {
        let text = serde_json::to_string(&full()).unwrap();
        assert_eq!(text, include_str!("golden/full.json").trim_end());
        assert_eq!(serde_json::from_str::<ScheduleRecord>(&text).unwrap(), full());
    }

    #[test]
    fn other_timings_keep_their_milliseconds() {
        for millis in [100, 101, 1_001, 86_400_000, 123_456_789_123] {
            for schedule in [
                Schedule::every(Duration::from_millis(millis)),
                Schedule::after_completion(Duration::from_millis(millis)),
            ] {
                let job = Job::new(JobId::new("j").unwrap(), "k", RawJson::parse("[]").unwrap(), Timestamp::EPOCH);
                let definition = schedule.build(job).unwrap();
                let text = serde_json::to_string(&definition).unwrap();
                assert_eq!(serde_json::from_str::<ScheduleDefinition>(&text).unwrap(), definition, "{text}");
            }
        }
    }

    #[test]
    fn the_least_a_record_needs() {
        let text = r#"{"v":1,"id":"s","status":"active","created_at":"2026-11-19T10:00:00Z",
            "definition":{"every":60,"job":{"kind":"k","args":[]}}}"#;
        let record: ScheduleRecord = serde_json::from_str(text).unwrap();
        assert_eq!((record.anchor, record.updated_at), (record.created_at, record.created_at));
        assert_eq!(record.definition.missed, Missed::Once);
        for (good, bad) in [
            (r#""v":1"#, r#""v":2"#),
            (r#""every":60"#, r#""every":60,"after":1"#),
            (r#""every":60"#, r#""cron":"61 * * * *""#),
            (r#""every":60"#, r#""every":60,"tz":"UTC""#),
            ("active", "running"),
        ] {
            let refused = text.replace(good, bad);
            assert!(serde_json::from_str::<ScheduleRecord>(&refused).is_err(), "{bad}");
        }
    }
}
