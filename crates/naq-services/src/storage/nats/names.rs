//! Names on NATS: the only place that forms and reads subjects, streams, buckets, consumers, keys and headers.
//!
//! Invariant: these are the protocol that other languages and dashboards use (`docs/protocol.md`); a prefix separates
//! one naq from another on the same account.

use std::sync::Arc;

use naq_models::{JobId, Priority, QueueName};

use crate::{
    kv_stores,
    storage::{Bucket, StorageError, StorageErrorKind},
};

/// The queue of a scheduled entry or result.
pub(super) const QUEUE: &str = "Naq-Queue";
/// The priority, 0 to 3.
pub(super) const PRIORITY: &str = "Naq-Priority";
/// When a scheduled entry is due, milliseconds since 1970.
pub(super) const RUN_AT: &str = "Naq-Run-At";
/// `scheduled`, `retry` or `waiting`.
pub(super) const STATUS: &str = "Naq-Status";
/// The `run` of the job in the body; absent in a queue: 1.
pub(super) const RUN: &str = "Naq-Run";
/// The `gen` of the job in the body; absent: 0.
pub(super) const GENERATION: &str = "Naq-Gen";
/// The job's kind, for lists.
pub(super) const KIND: &str = "Naq-Kind";
/// When the job was first stored, milliseconds since 1970.
pub(super) const STORED_AT: &str = "Naq-Stored-At";
/// A leader is moving this scheduled entry into its queue.
pub(super) const PROMOTING: &str = "Naq-Promoting";
/// The job may have run already: its result is to be looked at before it starts.
pub(super) const REVIEW: &str = "Naq-Review";
/// The error of a dead letter, as JSON on one line.
pub(super) const ERROR: &str = "Naq-Error";

/// When the earliest event of a batch happened, milliseconds since 1970.
pub(super) const FIRST: &str = "Naq-First";
/// When the latest one did.
pub(super) const LAST: &str = "Naq-Last";
/// The fingerprints of the jobs of a batch of events: 8 hex digits each.
pub(super) const JOBS: &str = "Naq-Jobs";

const PREFIX_MAX: usize = 32;

const RESULTS: &str = "results";
const SCHEDULED: &str = "scheduled_jobs";
const DEAD: &str = "failed_jobs";
/// The stream of events of a prefix that has its own.
const OWN_EVENTS: &str = "job_events";

fn bucket_name(bucket: Bucket) -> &'static str {
    match bucket {
        Bucket::Schedules => "schedules",
        Bucket::Workers => "workers",
        Bucket::Locks => "scheduler_lock",
        Bucket::Control => "control",
        Bucket::Unique => "unique",
        Bucket::Progress => "progress",
    }
}

/// The stream of events of a prefix whose configuration names none.
pub(crate) fn own_event_stream(prefix: &str) -> String {
    format!("{prefix}_{OWN_EVENTS}")
}

/// The names under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: Arc<str>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Result<Self, StorageError> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
        if prefix.is_empty() || prefix.len() > PREFIX_MAX || !prefix.bytes().all(allowed) {
            return Err(StorageError::new(
                StorageErrorKind::Refused,
                "open",
                format!("{prefix:?} is not a prefix: 1 to {PREFIX_MAX} of A-Z a-z 0-9 _ and -"),
            ));
        }
        Ok(Self { prefix: prefix.into() })
    }

    // ---- Queues ----------------------------------------------------------------------------------------------

    pub(super) fn queue_stream(&self, queue: &QueueName) -> String {
        format!("{}_queue_{queue}", self.prefix)
    }

    pub(super) fn queue_of_stream(&self, stream: &str) -> Option<QueueName> {
        let name = stream.strip_prefix(&*self.prefix)?.strip_prefix("_queue_")?;
        QueueName::new(name).ok()
    }

    pub(super) fn lane_filter(&self, queue: &QueueName, priority: Priority) -> String {
        format!("{}.queue.{queue}.{priority}.*", self.prefix)
    }

    pub(super) fn lane_consumer(priority: Priority) -> String {
        format!("p{priority}")
    }

    pub(super) fn job(&self, queue: &QueueName, priority: Priority, id: &JobId) -> String {
        // Once per job: joined, not formatted, and without room to spare, which the client would copy away.
        let priority = ["0", "1", "2", "3"][usize::from(priority.get())];
        [&*self.prefix, ".queue.", queue.as_str(), ".", priority, ".", id.as_str()].concat()
    }

    /// A job of any priority.
    pub(super) fn job_anywhere(&self, queue: &QueueName, id: &JobId) -> String {
        format!("{}.queue.{queue}.*.{id}", self.prefix)
    }

    pub(super) fn all_of_queue(&self, queue: &QueueName) -> String {
        format!("{}.queue.{queue}.>", self.prefix)
    }

    pub(super) fn all_queues(&self) -> String {
        format!("{}.queue.>", self.prefix)
    }

    /// Queue, priority and id of a subject.
    pub(super) fn read_job(&self, subject: &str) -> Option<(QueueName, Priority, JobId)> {
        let (queue, priority, id) = self.read_lane(subject)?;
        Some((QueueName::new(queue).ok()?, priority, JobId::new(id).ok()?))
    }

    /// Queue and priority of a subject, and its last token, which need not be an id.
    fn read_lane<'a>(&self, subject: &'a str) -> Option<(&'a str, Priority, &'a str)> {
        let rest = subject.strip_prefix(&*self.prefix)?.strip_prefix(".queue.")?;
        let mut tokens = rest.split('.');
        let queue = tokens.next()?;
        let priority = Priority::new(tokens.next()?.parse().ok()?).ok()?;
        let last = tokens.next()?;
        tokens.next().is_none().then_some((queue, priority, last))
    }

    /// As [`read_job`](Self::read_job), for a delivered message, whose queue the reader knows. One whose subject holds no
    /// id was put there by another program; it is known by its place in the stream, so that it ends like any other instead of lying there for ever.
    pub(super) fn read_delivered<'a>(&self, subject: &'a str, sequence: u64) -> Option<(&'a str, Priority, JobId)> {
        let (queue, priority, last) = self.read_lane(subject)?;
        let id = JobId::new(last).or_else(|_| JobId::new(format!("stray-{sequence}"))).ok()?;
        Some((queue, priority, id))
    }

    // ---- Dead letters ----------------------------------------------------------------------------------------

    pub(super) fn dead_stream(&self) -> String {
        format!("{}_{DEAD}", self.prefix)
    }

    pub(super) fn dead(&self, queue: &QueueName, id: &JobId) -> String {
        format!("{}.failed.{queue}.{id}", self.prefix)
    }

    pub(super) fn dead_anywhere(&self, id: &JobId) -> String {
        format!("{}.failed.*.{id}", self.prefix)
    }

    pub(super) fn all_dead(&self, queue: Option<&QueueName>) -> String {
        match queue {
            Some(queue) => format!("{}.failed.{queue}.*", self.prefix),
            None => format!("{}.failed.*.*", self.prefix),
        }
    }

    pub(super) fn read_dead(&self, subject: &str) -> Option<(QueueName, JobId)> {
        let (queue, id) = subject.strip_prefix(&*self.prefix)?.strip_prefix(".failed.")?.split_once('.')?;
        Some((QueueName::new(queue).ok()?, JobId::new(id).ok()?))
    }

    // ---- Buckets ---------------------------------------------------------------------------------------------

    pub(super) fn bucket(&self, bucket: Bucket) -> String {
        format!("{}_{}", self.prefix, bucket_name(bucket))
    }

    pub(super) fn results_bucket(&self) -> String {
        format!("{}_{RESULTS}", self.prefix)
    }

    pub(super) fn scheduled_bucket(&self) -> String {
        format!("{}_{SCHEDULED}", self.prefix)
    }

    pub(super) fn results_stream(&self) -> String {
        kv_stores::stream_name(&self.results_bucket())
    }

    pub(super) fn scheduled_stream(&self) -> String {
        kv_stores::stream_name(&self.scheduled_bucket())
    }

    pub(super) fn result(&self, id: &JobId) -> String {
        // Once per job: joined, not formatted.
        ["$KV.", &*self.prefix, "_", RESULTS, ".", id.as_str()].concat()
    }

    pub(super) fn scheduled(&self, id: &JobId) -> String {
        kv_stores::subject(&self.scheduled_bucket(), id.as_str())
    }

    pub(super) fn read_result(&self, subject: &str) -> Option<JobId> {
        JobId::new(kv_stores::key_of(&self.results_bucket(), subject)?).ok()
    }

    pub(super) fn read_scheduled(&self, subject: &str) -> Option<JobId> {
        JobId::new(kv_stores::key_of(&self.scheduled_bucket(), subject)?).ok()
    }

    /// Every bucket of a key-value kind, results and scheduled jobs included.
    pub(super) fn all_buckets(&self) -> Vec<String> {
        let mut buckets = vec![self.results_bucket(), self.scheduled_bucket()];
        buckets.extend(Bucket::ALL.map(|bucket| self.bucket(bucket)));
        buckets
    }

    /// Whether a bucket keeps what was replaced in it until it is removed with what replaced it. Not those whose keys are
    /// written once, or expire: what comes back of them is soon gone.
    pub(super) fn keeps_replaced(&self, bucket: &str) -> bool {
        let brief = [Bucket::Workers, Bucket::Progress, Bucket::Locks].map(|bucket| self.bucket(bucket));
        bucket != self.results_bucket() && !brief.iter().any(|brief| brief == bucket)
    }

    /// What no bucket holds: queues, dead letters, events.
    pub(super) fn everything(&self) -> String {
        format!("{}.>", self.prefix)
    }

    // ---- Events ----------------------------------------------------------------------------------------------

    /// Where batches of events are published.
    pub(super) fn event_batch(&self) -> String {
        format!("{}.events.batch", self.prefix)
    }

    // ---- Keys ------------------------------------------------------------------------------------------------

    /// In the unique bucket: an id that a caller chose.
    pub(super) fn id_key(id: &JobId) -> String {
        format!("id.{id}")
    }

    /// In the control bucket: how many deliveries of a job are excused.
    pub(super) fn hand_back_key(id: &JobId) -> String {
        format!("handback.{id}")
    }

    /// In the control bucket: a cancel that is under way.
    pub(super) fn cancel_key(id: &JobId) -> String {
        format!("cancel.{id}")
    }

    /// What [`cancel_key`](Self::cancel_key) puts before an id.
    pub(super) const CANCEL: &str = "cancel.";

    /// In the control bucket: the last message of a queue when this run of a server was first seen.
    pub(super) fn boot_key(queue: &QueueName, server_id: &str) -> String {
        format!("boot.{queue}.{server_id}")
    }

    // ---- Core subjects ---------------------------------------------------------------------------------------

    /// Asks all workers who runs a job.
    pub(super) fn running(&self) -> String {
        format!("{}.control.running", self.prefix)
    }

    /// Where removals of keys are announced.
    pub(super) fn gone(&self) -> String {
        format!("{}.control.gone", self.prefix)
    }
}

/// The prefix of a stream that naq has made; `None` for another program's.
pub(super) fn prefix_of_stream(stream: &str) -> Option<&str> {
    let own = |prefix: &&str| Names::new(prefix).is_ok();
    if let Some(bucket) = stream.strip_prefix(&kv_stores::stream_name("")) {
        let buckets = Bucket::ALL.map(bucket_name).into_iter().chain([RESULTS, SCHEDULED]);
        let prefix = buckets.filter_map(|name| bucket.strip_suffix(name)?.strip_suffix('_')).next();
        return prefix.filter(own);
    }
    // A queue's name may end like another stream, so it is looked for first.
    let of_queue = stream.split_once("_queue_").map(|(prefix, _)| prefix);
    let alone = || [DEAD, OWN_EVENTS].iter().find_map(|name| stream.strip_suffix(name)?.strip_suffix('_'));
    of_queue.or_else(alone).filter(own)
}

/// A text as it may stand in a header: one line.
pub(super) fn header_text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read_as_they_are_formed() {
        let names = Names::new("naq").unwrap();
        let (queue, id) = (QueueName::new("mail").unwrap(), JobId::new("order-17").unwrap());
        let subject = names.job(&queue, Priority::default(), &id);
        assert_eq!(subject, "naq.queue.mail.2.order-17");
        assert_eq!(names.read_job(&subject), Some((queue.clone(), Priority::default(), id.clone())));
        assert_eq!(names.read_dead(&names.dead(&queue, &id)), Some((queue.clone(), id.clone())));
        assert_eq!(names.read_result(&names.result(&id)), Some(id.clone()));
        assert_eq!(names.read_scheduled(&names.scheduled(&id)), Some(id));
        assert_eq!(names.queue_of_stream(&names.queue_stream(&queue)), Some(queue));
        for subject in ["naq.queue.mail.4.x", "naq.queue.mail.2.x.y", "naq.queue.mail.2", "other.queue.mail.2.x"] {
            assert_eq!(names.read_job(subject), None, "{subject}");
        }
    }

    /// Catches: a stream that is left behind, or another naq's or program's that is taken for ours.
    #[test]
    fn the_prefix_is_read_from_every_stream_and_from_no_other() {
        let names = Names::new("naq-7").unwrap();
        let queue = |name: &str| names.queue_stream(&QueueName::new(name).unwrap());
        let mut streams = vec![names.dead_stream(), own_event_stream("naq-7"), queue("mail"), queue("old_failed_jobs")];
        streams.extend(names.all_buckets().iter().map(|bucket| kv_stores::stream_name(bucket)));
        for stream in streams {
            assert_eq!(prefix_of_stream(&stream), Some("naq-7"), "{stream}");
        }
        for stream in ["KV_orders", "ORDERS", "KV_results", "_queue_mail", "NAQ_JOB_EVENTS"] {
            assert_eq!(prefix_of_stream(stream), None, "{stream}");
        }
    }

    #[test]
    fn prefixes_are_one_token() {
        for prefix in ["", "a.b", "a b", "*", &"x".repeat(33)] {
            assert_eq!(Names::new(prefix).unwrap_err().kind(), StorageErrorKind::Refused, "{prefix:?}");
        }
    }
}
