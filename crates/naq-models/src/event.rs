//! Events: what happened to jobs, workers, schedules and the system, for people who look from outside.
//!
//! Invariant: an event is told once and never changed; losing one harms nothing. A type that a reader does not know stays
//! readable, as [`EventType::Other`]; details that it does not know are passed over.
//!
//! Not here: who tells events (naq-services, naq-worker), and where they are kept.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{JobError, JobId, QueueName, ScheduleId, Timestamp};

mod batch;
mod filter;
mod id;
mod stats;
#[cfg(test)]
mod tests;

pub use batch::{BATCH_MAX_BYTES, BATCH_MAX_EVENTS, BatchError, EventBatch, EventBatches, decode, encode, fingerprint};
pub use filter::EventFilter;
pub use id::{EventId, EventOrigin};
pub use stats::{EventStats, EventStatsBuilder, FailureStats, KindStats, Spread, WorkerActivity};

/// Texts of an event longer than this are cut, in bytes.
const MAX_TEXT: usize = 1024;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventCategory {
    /// One job.
    Job,
    /// One worker.
    Worker,
    /// One schedule, or who leads the scheduler.
    Schedule,
    /// The store as a whole, or a queue of it.
    System,
    /// A type that this version does not know.
    Other,
}

macro_rules! event_types {
    ($($category:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)+ })+) => {
        /// What happened.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum EventType {
            $($($(#[$doc])* $name,)+)+
            /// Something that a later version knows: its name.
            Other(Arc<str>),
        }

        impl EventType {
            /// Every type that this version knows.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)+)+];

            /// Its name, as it is written everywhere.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $($(Self::$name => $text,)+)+
                    Self::Other(name) => name,
                }
            }

            /// What it is about.
            #[must_use]
            pub fn category(&self) -> EventCategory {
                match self {
                    $($(Self::$name)|+ => EventCategory::$category,)+
                    Self::Other(_) => EventCategory::Other,
                }
            }

            /// The type of a name; [`EventType::Other`] if this version does not know it.
            #[must_use]
            pub fn named(name: &str) -> Self {
                match name {
                    $($($text => Self::$name,)+)+
                    other => Self::Other(other.into()),
                }
            }
        }
    };
}

event_types! {
    Job {
        /// Stored in its queue.
        Enqueued = "enqueued",
        /// Stored, and waits for its time.
        Scheduled = "scheduled",
        /// Stored, and waits for other jobs.
        Waiting = "waiting",
        /// A worker began an attempt.
        Started = "started",
        /// Its handler said how far it is.
        Progress = "progress",
        /// Ended well.
        Completed = "completed",
        /// Ended for good with an error.
        Failed = "failed",
        /// An attempt failed; another one follows at `run_at`.
        RetryScheduled = "retry_scheduled",
        /// The handler put it off; it runs again at `run_at`, the same attempt.
        Snoozed = "snoozed",
        /// Ended by cancellation: by a caller, its handler, or a job that it depends on.
        Cancelled = "cancelled",
        /// Its bytes and its error lie with the dead letters.
        DeadLettered = "dead_lettered",
        /// A failed or cancelled job starts a new life.
        Requeued = "requeued",
        /// It waits for another time than before.
        Rescheduled = "rescheduled",
        /// A worker that stops, or did not get to it, gave it back; no attempt was counted.
        HandedBack = "handed_back",
    }
    Worker {
        /// It serves its queues from now on.
        WorkerStarted = "worker_started",
        /// It has ended in order.
        WorkerStopped = "worker_stopped",
        /// It runs nothing any more.
        WorkerIdle = "worker_idle",
        /// It runs something again.
        WorkerBusy = "worker_busy",
        /// It is alive.
        WorkerHeartbeat = "worker_heartbeat",
        /// It cannot go on.
        WorkerError = "worker_error",
    }
    Schedule {
        /// Defined for the first time, or anew after it was cancelled.
        ScheduleCreated = "schedule_created",
        /// Defined otherwise than before.
        ScheduleModified = "schedule_modified",
        /// Held.
        SchedulePaused = "schedule_paused",
        /// Goes on.
        ScheduleResumed = "schedule_resumed",
        /// Ended by hand.
        ScheduleCancelled = "schedule_cancelled",
        /// A run of it was enqueued.
        ScheduleTriggered = "schedule_triggered",
        /// It could not be moved on, or a run of it can never be enqueued.
        ScheduleError = "schedule_error",
        /// A scheduler leads from now on.
        LeaderElected = "leader_elected",
        /// It leads no more.
        LeaderLost = "leader_lost",
    }
    System {
        /// No job of the queue is started.
        QueuePaused = "queue_paused",
        /// Jobs of the queue are started again.
        QueueResumed = "queue_resumed",
        /// `count` jobs of the queue were cancelled.
        QueuePurged = "queue_purged",
        /// `count` events of one process were dropped, because the store was down or slow.
        EventsDropped = "events_dropped",
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A name that this version gives to no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a type of event{hint}")]
pub struct EventTypeError {
    name: String,
    hint: String,
}

impl FromStr for EventType {
    type Err = EventTypeError;

    /// Reads the name of a type that this version knows.
    fn from_str(name: &str) -> Result<Self, EventTypeError> {
        match Self::named(name) {
            Self::Other(_) => {
                let near = Self::ALL.iter().map(|known| (strsim::jaro_winkler(name, known.as_str()), known));
                let nearest = near.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0));
                let hint = nearest.map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"));
                Err(EventTypeError { name: name.chars().take(64).collect(), hint })
            }
            known => Ok(known),
        }
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::named(&String::deserialize(deserializer)?))
    }
}

/// What else is known of an event; each where it applies.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventDetails {
    /// How long the job could have run before it was started. In JSON: seconds.
    #[serde(skip_serializing_if = "Option::is_none", with = "seconds")]
    pub wait: Option<Duration>,
    /// How long the attempt ran, or the worker lived. In JSON: seconds.
    #[serde(skip_serializing_if = "Option::is_none", with = "seconds")]
    pub duration: Option<Duration>,
    /// When it runs next, or was due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// The stable name of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<Box<str>>,
    /// What the error says, or why it happened; cut to 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<str>>,
    /// How far a job is, from 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Of a worker: its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Box<str>>,
    /// Of a worker: its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

impl EventDetails {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Durations as seconds, to the microsecond.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            #[expect(clippy::cast_precision_loss, reason = "285 years fit exactly")]
            Some(duration) => serializer.serialize_f64(duration.as_micros() as f64 / 1e6),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        let micros = |seconds: f64| Duration::try_from_secs_f64(seconds).ok().map(|_| (seconds * 1e6).round());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a duration")]
        Ok(seconds.and_then(micros).map(|micros| Duration::from_micros(micros as u64)))
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique; carries its time.
    pub id: EventId,
    /// When it happened, as who told it knew the time.
    pub time: Timestamp,
    /// What happened.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// The job it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<JobId>,
    /// The queue of the job, or the queue it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// The kind of the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Arc<str>>,
    /// The attempt of the job, 1 on its first run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The worker or scheduler that it is about, or that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<Arc<str>>,
    /// The schedule it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<ScheduleId>,
    /// What else is known.
    #[serde(default, skip_serializing_if = "EventDetails::is_empty")]
    pub details: EventDetails,
}

impl Event {
    /// An event that says only what happened, at the time of its id.
    #[must_use]
    pub fn new(id: EventId, event_type: EventType) -> Self {
        Self {
            id,
            time: id.time(),
            event_type,
            job_id: None,
            queue: None,
            kind: None,
            attempt: None,
            worker_id: None,
            schedule_id: None,
            details: EventDetails::default(),
        }
    }

    /// The same event, about a job in a queue.
    #[must_use]
    pub fn of_job(mut self, id: JobId, queue: QueueName) -> Self {
        (self.job_id, self.queue) = (Some(id), Some(queue));
        self
    }

    /// The same event with an error.
    #[must_use]
    pub fn with_error(mut self, error: &JobError) -> Self {
        self.details.error_type = Some(error.error_type.as_str().into());
        self.with_message(&error.message)
    }

    /// The same event with a text, cut to its bound.
    #[must_use]
    pub fn with_message(mut self, message: &str) -> Self {
        let cut = if message.len() <= MAX_TEXT {
            message.into()
        } else {
            crate::error::cut(message.to_owned(), MAX_TEXT).into()
        };
        self.details.message = Some(cut);
        self
    }
}
