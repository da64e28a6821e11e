//! Streams and consumers: made or verified on first use, and compared with what they must be.
//!
//! Invariant: nothing is used whose settings break a promise; the error names each differing field. What is only less
//! good (replicas, room for consumers) is left to `diagnose`. Making is idempotent, so several processes may race.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::try_join_all;
use naq_models::{Priority, QueueName};
use serde_json::{Value, json};

use super::{EventStream, Shared, names::Names, repair::Repaired};
use crate::{
    storage::{QueueOptions, Result, StorageError, StorageErrorKind},
    streams::{ApiError, ApiFailure, ConsumerInfo, Revisions, StreamService, marks, nanos},
};

/// Since nats-server 2.15 a stream takes 1 000 consumers unless told otherwise, and -1 does not tell it.
const MAX_CONSUMERS: u64 = 65_536;
/// Open pulls of all workers on one lane; the server's default of 512 is too small for a fleet.
const MAX_WAITING: u64 = 4096;
/// Attempts at changing a consumer.
const UPDATES: usize = 3;
/// A batch of events that is sent a second time within this is stored once.
const DUPLICATES: Duration = Duration::from_secs(120);
/// Fields of the stream of events that follow the configuration of whoever writes events.
const EVENT_LIMITS: [&str; 2] = ["max_age", "max_bytes"];
/// Fields whose difference weakens something but breaks no promise.
const TOLERATED: [&str; 6] =
    ["num_replicas", "compression", "max_consumers", "allow_direct", "max_waiting", "duplicate_window"];

/// Settings that differ: field, what it is, what it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Drift(Vec<(String, Value, Value)>);

impl Drift {
    /// Compares what is with what should be, over the fields that should be something. An absent field is its zero.
    pub(super) fn between(is: &Value, should: &Value) -> Self {
        let fields = should.as_object().into_iter().flatten();
        let differing = fields.filter_map(|(name, wanted)| {
            let found = is.get(name).cloned().unwrap_or(Value::Null);
            let absent = found.is_null() && matches!(wanted, Value::Bool(false) | Value::Null)
                || found.is_null() && wanted.as_i64() == Some(0);
            (found != *wanted && !absent).then(|| (name.clone(), found, wanted.clone()))
        });
        Self(differing.collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Without what is tolerated.
    pub(super) fn serious(mut self) -> Self {
        self.0.retain(|(name, ..)| !TOLERATED.contains(&name.as_str()));
        self
    }
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (name, is, should)) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{name} is {is}, should be {should}")?;
        }
        Ok(())
    }
}

/// What the operator chooses of every stream. Existing streams keep what they have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) replicas: usize,
    pub(super) compress: bool,
}

impl Shape {
    fn of(self, mut config: Value) -> Value {
        config["num_replicas"] = json!(self.replicas);
        if self.compress {
            config["compression"] = json!("s2");
        }
        config
    }
}

/// What a stream takes from which messages are removed one by one.
fn subjects(stream: &str, of_messages: impl IntoIterator<Item = String>) -> Vec<String> {
    of_messages.into_iter().chain([marks(stream)]).collect()
}

pub(super) fn queue_config(names: &Names, queue: &QueueName, shape: Shape) -> Value {
    shape.of(json!({
        "name": names.queue_stream(queue),
        "subjects": subjects(&names.queue_stream(queue), Priority::ALL.map(|priority| names.lane_filter(queue, priority))),
        "retention": "workqueue",
        "storage": "file",
        "discard": "new",
        "discard_new_per_subject": true,
        "max_msgs_per_subject": 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "max_consumers": MAX_CONSUMERS,
    }))
}

pub(super) fn bucket_config(names: &Names, bucket: &str, shape: Shape, message_ttl: bool) -> Value {
    let stream = crate::kv_stores::stream_name(bucket);
    let mut config = shape.of(json!({
        "name": stream,
        "subjects": subjects(&stream, [crate::kv_stores::subject(bucket, ">")]),
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        REVISIONS: if names.keeps_replaced(bucket) { Revisions::KEPT } else { 1 },
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "max_consumers": MAX_CONSUMERS,
        "allow_rollup_hdrs": true,
        "allow_direct": true,
        "deny_delete": false,
    }));
    if message_ttl {
        config[MESSAGE_TTL] = json!(true);
    }
    config
}

/// How many messages of a key a bucket keeps.
const REVISIONS: &str = "max_msgs_per_subject";
const SUBJECTS: &str = "subjects";
/// The option that lets messages expire by themselves.
const MESSAGE_TTL: &str = "allow_msg_ttl";
/// The option that lets a stream take messages all or none.
const ATOMIC: &str = "allow_atomic";

/// Whether a queue's stream takes jobs all or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batches {
    /// The server has echoed the option.
    Atomic,
    None,
}

pub(super) fn dead_config(names: &Names, shape: Shape) -> Value {
    shape.of(json!({
        "name": names.dead_stream(),
        "subjects": subjects(&names.dead_stream(), [names.all_dead(None)]),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "max_consumers": MAX_CONSUMERS,
    }))
}

/// Unlike the other streams this one has limits: events are dropped for their age and size, jobs never.
pub(super) fn events_config(names: &Names, options: &EventStream, compress: bool) -> Value {
    let shape = Shape { replicas: options.replicas, compress };
    shape.of(json!({
        "name": options.name,
        "subjects": [names.event_batch()],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs": -1,
        "max_bytes": i64::try_from(options.retention.max_bytes).unwrap_or(i64::MAX),
        "max_age": nanos(options.retention.max_age),
        "max_msg_size": -1,
        "max_consumers": MAX_CONSUMERS,
        "duplicate_window": nanos(DUPLICATES.min(options.retention.max_age)),
    }))
}

fn lane_config(names: &Names, queue: &QueueName, priority: Priority, lease: Duration, limit: Option<u32>) -> Value {
    json!({
        "durable_name": Names::lane_consumer(priority),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": nanos(lease),
        "max_deliver": -1,
        "filter_subject": names.lane_filter(queue, priority),
        "replay_policy": "instant",
        "max_waiting": MAX_WAITING,
        "max_ack_pending": limit.map_or(-1, i64::from),
    })
}

/// How often it is tried to make a stream that others make too, with growing pauses.
const MAKES: u32 = 5;
const MAKE_PAUSE: Duration = Duration::from_millis(20);

/// Makes a stream if it is missing; returns its settings as the server has them.
pub(super) async fn ensure_stream(streams: &StreamService, config: &Value) -> Result<Value> {
    let name = config["name"].as_str().unwrap_or_default();
    let failed = |failure| streams.error_of(name, "open", failure);
    let mut overlap = None;
    for attempt in 0..MAKES {
        if attempt > 0 {
            tokio::time::sleep(MAKE_PAUSE * attempt).await;
        }
        if let Some(info) = streams.stream_info(name).await.map_err(failed)? {
            return Ok(info.config);
        }
        let created = streams.api::<Value>(&format!("STREAM.CREATE.{name}"), config.clone()).await;
        match created {
            Ok(answer) => return Ok(answer["config"].clone()),
            // Another process made it first.
            Err(ApiFailure::Refused(ApiError { err_code: 10058, .. })) => {}
            // The same at the very same moment: its subjects are taken, and its name is not yet. Or another program's are.
            Err(failure) if failure.is(10065) => overlap = Some(failure),
            Err(failure) => return Err(failed(failure)),
        }
    }
    Err(match overlap {
        Some(failure) => failed(failure),
        None => refused(streams, &format!("stream {name} exists and cannot be read")),
    })
}

fn refused(streams: &StreamService, detail: &str) -> StorageError {
    let location = streams.connection().location();
    StorageError::new(StorageErrorKind::Incompatible, "open", format!("NATS at {location}: {detail}"))
}

/// Refuses settings that break a promise.
fn verify(streams: &StreamService, what: &str, is: &Value, should: &Value) -> Result<()> {
    let drift = Drift::between(is, should).serious();
    if drift.is_empty() {
        return Ok(());
    }
    Err(refused(streams, &format!("{what}: {drift}")).with_hint(
        "another program made it, or this server does not know the setting; correct it (`nats stream edit`), or choose \
         another prefix",
    ))
}

/// Makes or verifies everything that does not belong to one queue. Returns whether results expire by themselves.
pub(super) async fn ensure_store(streams: &StreamService, names: &Names, shape: Shape, ttl: bool) -> Result<bool> {
    let results = names.results_bucket();
    let configs: Vec<Value> = names
        .all_buckets()
        .iter()
        .map(|bucket| bucket_config(names, bucket, shape, false))
        .filter(|config| config["name"] != names.results_stream())
        .chain([dead_config(names, shape)])
        .collect();
    let ensure = |config: Value| async move {
        let is = grown(streams, ensure_stream(streams, &config).await?, &config).await;
        verify(streams, &format!("stream {}", config["name"].as_str().unwrap_or_default()), &is, &config)
    };
    let (_, ttl) = tokio::try_join!(try_join_all(configs.into_iter().map(ensure)), async {
        let config = bucket_config(names, &results, shape, false);
        let is = ensure_stream(streams, &bucket_config(names, &results, shape, ttl)).await?;
        let mut is = grown(streams, is, &config).await;
        verify(streams, &format!("stream {}", names.results_stream()), &is, &config)?;
        if ttl && is[MESSAGE_TTL] != true {
            is = change(streams, is, MESSAGE_TTL, json!(true)).await;
        }
        Ok(is[MESSAGE_TTL] == true)
    })?;
    Ok(ttl)
}

/// The settings of a stream, which is given what it lacks if an older naq made it. What differs in more is another program's,
/// and stays as it is.
async fn grown(streams: &StreamService, mut is: Value, config: &Value) -> Value {
    let drift = Drift::between(&is, config).serious();
    let lacks = |(field, had, _): &(String, Value, Value)| match field.as_str() {
        REVISIONS => true,
        SUBJECTS => had.as_array().is_some_and(|had| {
            let wanted = config[SUBJECTS].as_array();
            wanted.is_some_and(|wanted| had.len() < wanted.len() && had.iter().all(|one| wanted.contains(one)))
        }),
        _ => false,
    };
    if drift.0.iter().all(lacks) {
        for (field, _, wanted) in drift.0 {
            is = change(streams, is, &field, wanted).await;
        }
    }
    is
}

/// A stream that was made on an older server, or by an older naq, learns what the server can do. Returns its settings.
async fn change(streams: &StreamService, is: Value, option: &str, value: Value) -> Value {
    let mut wanted = is.clone();
    wanted[option] = value;
    let name = is["name"].as_str().unwrap_or_default().to_owned();
    match streams.api::<Value>(&format!("STREAM.UPDATE.{name}"), wanted).await {
        Ok(answer) => answer["config"].clone(),
        Err(failure) => {
            tracing::warn!(stream = name, option, %failure, "naq does without a setting that could not be changed");
            is
        }
    }
}

impl Shared {
    /// Makes or verifies the stream of events, and gives it the limits of this process's configuration.
    pub(super) async fn ensure_events(&self) -> Result<()> {
        if self.events_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        let options = &self.options.events;
        let config = events_config(&self.names, options, self.options.compress);
        let mut is = ensure_stream(&self.streams, &config).await?;
        if EVENT_LIMITS.iter().any(|field| is[field] != config[field]) {
            for field in EVENT_LIMITS {
                is[field] = config[field].clone();
            }
            let changed = self.streams.api::<Value>(&format!("STREAM.UPDATE.{}", options.name), is).await;
            is = changed.map_err(|failure| self.streams.error("set limits of events", failure))?["config"].clone();
        }
        verify(&self.streams, &format!("stream {}", options.name), &is, &config)?;
        self.events_ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes or verifies a queue, once per process. A queue that was removed meanwhile is found missing by a publish or
    /// a pull, which then calls [`forget_queue`](Self::forget_queue).
    pub(super) async fn ensure_queue(&self, queue: &QueueName) -> Result<()> {
        if self.known_queues().contains_key(queue) {
            return Ok(());
        }
        let config = queue_config(&self.names, queue, self.options.shape());
        let atomic = self.features.may_have_atomic_batches();
        let mut wanted = config.clone();
        if atomic {
            wanted[ATOMIC] = json!(true);
        }
        let is = ensure_stream(&self.streams, &wanted).await?;
        let mut is = grown(&self.streams, is, &config).await;
        verify(&self.streams, &format!("stream {}", self.names.queue_stream(queue)), &is, &config)?;
        if atomic && is[ATOMIC] != true {
            is = change(&self.streams, is, ATOMIC, json!(true)).await;
        }
        let batches = if atomic && is[ATOMIC] == true { Batches::Atomic } else { Batches::None };
        try_join_all(Priority::ALL.map(|priority| self.ensure_lane(queue, priority, None))).await?;
        self.boundary(queue).await?;
        self.known_queues().insert(queue.clone(), batches);
        Ok(())
    }

    /// What the stream of a queue takes that [`ensure_queue`](Self::ensure_queue) has found.
    pub(super) fn batches_of(&self, queue: &QueueName) -> Batches {
        self.known_queues().get(queue).copied().unwrap_or(Batches::None)
    }

    pub(super) fn forget_queue(&self, queue: &QueueName) {
        self.known_queues().remove(queue);
    }

    /// Makes a queue ready for a worker: its stream, its lanes with the worker's lease, and no orphans.
    pub(super) async fn prepare_queue(self: &Arc<Self>, queue: &QueueOptions) -> Result<Repaired> {
        self.ensure_queue(&queue.name).await?;
        try_join_all(Priority::ALL.map(|priority| self.ensure_lane(&queue.name, priority, Some(queue)))).await?;
        self.repair_queue(queue).await
    }

    /// Makes a lane's consumer, or gives it the lease and limit of `options`. Workers that disagree on them overwrite
    /// each other; the last one wins.
    async fn ensure_lane(&self, queue: &QueueName, priority: Priority, options: Option<&QueueOptions>) -> Result<()> {
        let failed = |failure| self.streams.error("open queue", failure);
        let (stream, consumer) = (self.names.queue_stream(queue), Names::lane_consumer(priority));
        let lease = options.map_or(self.options.default_lease, |options| options.lease);
        let limit = options.and_then(|options| options.max_ack_pending);
        let config = lane_config(&self.names, queue, priority, lease, limit);
        let info = self.streams.consumer_info(&stream, &consumer).await.map_err(failed)?;
        let up_to_date = |info: &ConsumerInfo| {
            let drift = Drift::between(&info.config, &config).serious();
            drift.is_empty() || options.is_none() && drift.0.iter().all(|(name, ..)| adjustable(name))
        };
        if info.as_ref().is_some_and(up_to_date) {
            return Ok(());
        }
        let body = json!({ "stream_name": stream, "config": config });
        let verb = format!("CONSUMER.DURABLE.CREATE.{stream}.{consumer}");
        let mut made: ConsumerInfo = self.streams.api(&verb, body.clone()).await.map_err(failed)?;
        for _ in 0..UPDATES {
            if Drift::between(&made.config, &config).serious().is_empty() {
                break;
            }
            // nats-server 2.9 answers the first update after it was killed with what was before, and does nothing.
            made = self.streams.api(&verb, body.clone()).await.map_err(failed)?;
        }
        verify(&self.streams, &format!("consumer {consumer} of stream {stream}"), &made.config, &config)
    }

    /// The queues that exist.
    pub(super) async fn queues(&self) -> Result<Vec<QueueName>> {
        let streams = self.streams.stream_names(&self.names.all_queues()).await;
        let streams = streams.map_err(|failure| self.streams.error("list queues", failure))?;
        let mut queues: Vec<_> = streams.iter().filter_map(|stream| self.names.queue_of_stream(stream)).collect();
        queues.sort();
        Ok(queues)
    }
}

/// Fields of a lane that a worker sets to its own values.
fn adjustable(field: &str) -> bool {
    matches!(field, "ack_wait" | "max_ack_pending")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_names_each_field_and_forgives_absent_zeros() {
        let should =
            json!({ "max_age": 0, "discard_new_per_subject": true, "retention": "workqueue", "num_replicas": 3 });
        assert!(
            Drift::between(
                &json!({ "discard_new_per_subject": true, "retention": "workqueue", "num_replicas": 3 }),
                &should
            )
            .is_empty()
        );
        let drift = Drift::between(&json!({ "max_age": 5, "retention": "workqueue", "num_replicas": 1 }), &should);
        let names: Vec<_> = drift.serious().0.into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["discard_new_per_subject", "max_age"]);
    }
}
