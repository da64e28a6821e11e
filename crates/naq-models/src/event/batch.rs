//! Batches: how events are stored, several in one JSON text.
//!
//! Invariant: a batch is readable by itself, by any language. What its events have in common stands in its head once; an
//! event writes only where it differs from the head (`null` where the head has something and it has not). That makes a
//! stored event a third as long, and events are to cost a small part of what a job costs.
//!
//! Layout: `{"v":1,"time":T,"origin":O,"type":…,"queue":…,"kind":…,"attempt":…,"worker_id":…,"schedule_id":…,"events":[E,…]}`
//! with each E `{"n":number,"ms":after T,"job_id":…,"details":{…}}` and the fields of the head that differ. The id of an
//! event is made of its time, `origin` and `n`.

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

use super::{Event, EventDetails, EventId, EventOrigin, EventType};
use crate::{JobId, QueueName, ScheduleId, Timestamp};

/// Events of one batch, at most.
pub const BATCH_MAX_EVENTS: usize = 1000;
/// A batch ends with the event that takes it over so many bytes. With the longest event it stays below 256 KiB.
pub const BATCH_MAX_BYTES: usize = 128 * 1024;

const VERSION: u32 = 1;

/// Some events as they are stored, with what is needed to find them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventBatch {
    /// That of its first event: what is sent twice is known by it.
    pub id: EventId,
    /// The time of the earliest.
    pub first: Timestamp,
    /// The time of the latest.
    pub last: Timestamp,
    /// How many.
    pub count: usize,
    /// The [`fingerprint`]s of their jobs: sorted, each once.
    pub jobs: Vec<u32>,
    /// The events.
    pub body: Vec<u8>,
}

/// Why a stored batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Another program, or a damaged store, wrote it.
    #[error("not a batch of events")]
    Malformed(#[source] serde_json::Error),
    /// A later version wrote it.
    #[error("a batch of version {0}; this program reads version 1")]
    Version(u32),
}

/// What a batch is looked up by: FNV-1a, 32 bits, of a job's id. The same in every version and on every machine.
#[must_use]
pub fn fingerprint(id: &JobId) -> u32 {
    id.as_str().bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[derive(Serialize)]
struct Head<'a> {
    v: u32,
    time: Timestamp,
    origin: EventOrigin,
    #[serde(rename = "type")]
    event_type: &'a EventType,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a QueueName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule_id: Option<&'a ScheduleId>,
}

/// Events on their way to a store: written into batches as they come, so that none of them is kept.
#[derive(Debug, Default)]
pub struct EventBatches {
    full: VecDeque<EventBatch>,
    /// The head of the batch that is written at the moment, and that batch.
    open: Option<(Event, EventBatch)>,
    count: usize,
}

impl EventBatches {
    /// Adds an event.
    pub fn push(&mut self, event: &Event) {
        let (head, batch) = self.open.get_or_insert_with(|| {
            let head = Event { details: EventDetails::default(), ..event.clone() };
            (head, begin(event))
        });
        push(batch, head, event);
        self.count += 1;
        if batch.count >= BATCH_MAX_EVENTS || batch.body.len() >= BATCH_MAX_BYTES {
            self.full.extend(self.open.take().map(|(_, batch)| end(batch)));
        }
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes the oldest batch, be it full or not.
    pub fn pop(&mut self) -> Option<EventBatch> {
        let batch = self.full.pop_front().or_else(|| self.open.take().map(|(_, batch)| end(batch)))?;
        self.count -= batch.count;
        Some(batch)
    }
}

/// Writes events into as few batches as their bounds allow, in order.
#[must_use]
pub fn encode<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<EventBatch> {
    let mut batches = EventBatches::default();
    events.into_iter().for_each(|event| batches.push(event));
    std::iter::from_fn(|| batches.pop()).collect()
}

fn json(body: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(body, value).expect("events hold only what JSON can say");
}

fn begin(event: &Event) -> EventBatch {
    let head = Head {
        v: VERSION,
        time: event.time,
        origin: event.id.origin(),
        event_type: &event.event_type,
        queue: event.queue.as_ref(),
        kind: event.kind.as_deref(),
        attempt: event.attempt,
        worker_id: event.worker_id.as_deref(),
        schedule_id: event.schedule_id.as_ref(),
    };
    let mut body = Vec::with_capacity(4096);
    json(&mut body, &head);
    body.pop();
    body.extend_from_slice(b",\"events\":[");
    EventBatch { id: event.id, first: event.time, last: event.time, count: 0, jobs: Vec::new(), body }
}

/// By hand, where all else is serde's: this is most of what an event costs, and names of fields need no escaping.
fn push(batch: &mut EventBatch, head: &Event, event: &Event) {
    let body = &mut batch.body;
    body.extend_from_slice(if batch.count > 0 { b",{\"n\":" } else { b"{\"n\":" });
    json(body, &event.id.number());
    let ms = event.time.unix_millis() - head.time.unix_millis();
    if ms != 0 {
        field(body, ",\"ms\":", &ms);
    }
    if event.id.origin() != head.id.origin() {
        field(body, ",\"origin\":", &event.id.origin());
    }
    if event.event_type != head.event_type {
        field(body, ",\"type\":", &event.event_type);
    }
    if let Some(id) = &event.job_id {
        // An identity has nothing to escape.
        body.extend_from_slice(b",\"job_id\":\"");
        body.extend_from_slice(id.as_str().as_bytes());
        body.push(b'"');
        batch.jobs.push(fingerprint(id));
    }
    if event.queue != head.queue {
        field(body, ",\"queue\":", &event.queue);
    }
    if event.kind != head.kind {
        field(body, ",\"kind\":", &event.kind);
    }
    if event.attempt != head.attempt {
        field(body, ",\"attempt\":", &event.attempt);
    }
    if event.worker_id != head.worker_id {
        field(body, ",\"worker_id\":", &event.worker_id);
    }
    if event.schedule_id != head.schedule_id {
        field(body, ",\"schedule_id\":", &event.schedule_id);
    }
    if !event.details.is_empty() {
        field(body, ",\"details\":", &event.details);
    }
    body.push(b'}');
    batch.count += 1;
    batch.first = batch.first.min(event.time);
    batch.last = batch.last.max(event.time);
}

/// Adds a field by what stands before its value.
fn field(body: &mut Vec<u8>, before: &str, value: &impl Serialize) {
    body.extend_from_slice(before.as_bytes());
    json(body, value);
}

fn end(mut batch: EventBatch) -> EventBatch {
    batch.body.extend_from_slice(b"]}");
    batch.jobs.sort_unstable();
    batch.jobs.dedup();
    batch
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Deserialize)]
struct ReadBatch {
    v: u32,
    time: Timestamp,
    origin: EventOrigin,
    #[serde(rename = "type")]
    event_type: EventType,
    queue: Option<QueueName>,
    kind: Option<Arc<str>>,
    attempt: Option<u32>,
    worker_id: Option<Arc<str>>,
    schedule_id: Option<ScheduleId>,
    events: Vec<ReadLine>,
}

#[derive(Deserialize)]
struct ReadLine {
    n: u32,
    #[serde(default)]
    ms: i64,
    origin: Option<EventOrigin>,
    #[serde(rename = "type")]
    event_type: Option<EventType>,
    job_id: Option<JobId>,
    #[serde(default, deserialize_with = "written")]
    queue: Option<Option<QueueName>>,
    #[serde(default, deserialize_with = "written")]
    kind: Option<Option<Arc<str>>>,
    #[serde(default, deserialize_with = "written")]
    attempt: Option<Option<u32>>,
    #[serde(default, deserialize_with = "written")]
    worker_id: Option<Option<Arc<str>>>,
    #[serde(default, deserialize_with = "written")]
    schedule_id: Option<Option<ScheduleId>>,
    #[serde(default)]
    details: EventDetails,
}

/// A field that is there, be it `null`.
fn written<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads the events of a batch, in order.
///
/// # Errors
/// If it is not a batch, or one of a later version.
pub fn decode(body: &[u8]) -> Result<Vec<Event>, BatchError> {
    let batch: ReadBatch = serde_json::from_slice(body).map_err(|error| match serde_json::from_slice(body) {
        Ok(Version { v }) if v != VERSION => BatchError::Version(v),
        _ => BatchError::Malformed(error),
    })?;
    let ReadBatch { v, time, origin, event_type, queue, kind, attempt, worker_id, schedule_id, events } = batch;
    if v != VERSION {
        return Err(BatchError::Version(v));
    }
    let event = |line: ReadLine| {
        let time = Timestamp::from_unix_millis(time.unix_millis().saturating_add(line.ms)).unwrap_or(time);
        Event {
            id: EventId::new(time, line.origin.unwrap_or(origin), line.n),
            time,
            event_type: line.event_type.unwrap_or_else(|| event_type.clone()),
            job_id: line.job_id,
            queue: line.queue.unwrap_or_else(|| queue.clone()),
            kind: line.kind.unwrap_or_else(|| kind.clone()),
            attempt: line.attempt.unwrap_or(attempt),
            worker_id: line.worker_id.unwrap_or_else(|| worker_id.clone()),
            schedule_id: line.schedule_id.unwrap_or_else(|| schedule_id.clone()),
            details: line.details,
        }
    };
    Ok(events.into_iter().map(event).collect())
}
