//! Stored records of naq: jobs in both forms, results, schedules, batches of events, progress.
//!
//! Invariant: the input is read as each of them; most are none.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use naq_models::{
    Address, Job, JobResult, Priority, Progress, QueueName, RawJson, ScheduleRecord, Timestamp, event,
    schedule::{LastRun, MAX_PENDING, TOLERANCE},
    wire,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{assert_goes_on, assert_survives, id, now};

/// The fields of an envelope in `docs/protocol.md`.
const FIELDS: [&str; 26] = [
    "v",
    "id",
    "kind",
    "queue",
    "args",
    "priority",
    "enqueued_at",
    "run_at",
    "attempt",
    "max_retries",
    "retry_strategy",
    "retry_delay",
    "retry_max_delay",
    "retry_jitter",
    "retry_on",
    "ignore_on",
    "timeout",
    "result_ttl",
    "depends_on",
    "on_dependency_failure",
    "unique",
    "schedule_id",
    "run",
    "gen",
    "last_error",
    "meta",
];

/// Reads stored records: see the module.
pub fn envelope(data: &[u8]) {
    let address = Address {
        id: id("order-17"),
        queue: QueueName::new("mail").expect("a name within its bounds"),
        priority: Priority::default(),
        stored_at: now(),
    };
    let submitted = wire::decode_submission(data, address.clone());
    if let Ok(job) = wire::decode(data, &address) {
        assert_eq!((&job.id, &job.queue, job.priority), (&address.id, &address.queue, address.priority));
        assert_keeps_unknown(&job, data);
        assert_survives(&job);
        assert_goes_on(&job);
    }
    if let Ok(job) = submitted {
        assert_keeps_unknown(&job, data);
        assert_survives(&job);
    }
    if let Ok(result) = JobResult::decode(data) {
        let again = JobResult::decode(&result.encode()).expect("what was written is read");
        assert_eq!(again, result);
    }
    assert_json_survives::<Progress>(data);
    if let Some(record) = assert_json_survives::<ScheduleRecord>(data) {
        schedule(&record);
    }
    if let Ok(events) = event::decode(data) {
        let batches = event::encode(&events);
        let again = batches.iter().flat_map(|batch| event::decode(&batch.body).expect("what was written is read"));
        assert!(events.iter().cloned().eq(again), "{events:?}");
    }
}

/// Fields of a later version are kept as they came.
fn assert_keeps_unknown(job: &Job, data: &[u8]) {
    let Ok(fields) = serde_json::from_slice::<BTreeMap<String, RawJson>>(data) else { return };
    for (name, value) in fields.iter().filter(|(name, _)| !FIELDS.contains(&name.as_str())) {
        assert_eq!(job.extra.get(name), Some(value), "{name:?}");
    }
}

fn assert_json_survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    let text = serde_json::to_string(&value).expect("records hold only what JSON can say");
    let again: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(again, value, "{text}");
    Some(value)
}

/// Whatever stands in a record, a leader can go on with it, at any time.
fn schedule(record: &ScheduleRecord) {
    for now in [now(), Timestamp::EPOCH] {
        for last_run in [LastRun::Unknown, LastRun::Live, LastRun::Ended(now.saturating_sub(Duration::from_secs(1)))] {
            let advance = record.advance(now, last_run, TOLERANCE);
            assert!(advance.fires.is_sorted(), "{:?}", advance.fires);
            assert!(advance.fires.iter().all(|due| *due <= now), "{:?} at {now}", advance.fires);
            let pending = advance.record.pending.len();
            assert!(pending <= MAX_PENDING.max(record.pending.len()), "{pending} pending");
            for due in advance.fires {
                assert_survives(&advance.record.job(due, now));
            }
        }
        let _changed = [record.pause(now), record.resume(now), record.trigger(now).map(|advance| advance.record)];
        let _gone = record.cancel(now);
    }
    let upcoming = record.upcoming(10);
    assert!(upcoming.is_sorted_by(|a, b| a < b), "{upcoming:?}");
}
