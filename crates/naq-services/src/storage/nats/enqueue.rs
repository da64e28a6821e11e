//! New jobs: one pipelined publish each, and the truth about those whose acknowledgement got lost.
//!
//! Invariant: "stored" is said only after the stream said it, or after the job was found. An ambiguous publish is resolved
//! by reading back (queue, scheduled, dead letters, result) before it is tried again, and the second try is marked to be
//! reviewed, so that a job that ran in between does not run again.

use std::collections::{HashMap, HashSet};

use naq_models::{Address, JobStatus, QueueName};
use tokio::time::{Duration, Instant};

use super::{
    Shared,
    names::{GENERATION, REVIEW, RUN},
    repeat,
    reserve::Reserved,
};
use crate::{
    connection::Outgoing,
    kv_stores::is_live,
    storage::{Enqueued, Entry, Result, StorageError, StorageErrorKind, crash::crash_point},
    streams::{PublishFailure, Revisions, StoredMessage},
};

const OPERATION: &str = "enqueue";
/// Seen with 2.9.10 and 2.15.0: no answer to any write, and nothing tells clients why.
const SILENT: &str = "see the server's log; one whose disk was full answers no write until it is restarted";
/// Between two looks for a job while the server cannot be reached: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Everything a store holds of one id at one address.
#[derive(Debug, Default)]
pub(super) struct Traces {
    pub(super) queued: Option<StoredMessage>,
    pub(super) scheduled: Option<StoredMessage>,
    pub(super) dead: Option<StoredMessage>,
    /// Only if it is still kept.
    pub(super) result: Option<StoredMessage>,
}

impl Traces {
    /// Whether this life of a job has been stored: it is somewhere, or has ended since.
    pub(super) fn show_life(&self, generation: u64) -> bool {
        self.dead.is_some() || self.occupy_id(generation)
    }

    /// Whether a new job of this id is a duplicate: it is queued or waits, or its result is kept.
    pub(super) fn occupy_id(&self, generation: u64) -> bool {
        self.queued.is_some()
            || self.scheduled.is_some()
            || self.result.as_ref().is_some_and(|result| result.sequence > generation)
    }
}

impl Shared {
    pub(super) async fn enqueue(&self, entries: Vec<Entry>) -> Vec<Result<Enqueued>> {
        let mut outcomes: Vec<Option<Result<Enqueued>>> = entries.iter().map(|_| None).collect();
        let mut left: Vec<usize> = (0..entries.len()).collect();
        while !left.is_empty() {
            // A chosen id that is in the batch twice must be stored before it can be found to be a duplicate.
            let mut chosen = HashSet::new();
            let (now, later): (Vec<usize>, Vec<usize>) = left
                .into_iter()
                .partition(|i| entries[*i].address.id.is_generated() || chosen.insert(entries[*i].address.id.clone()));
            self.enqueue_distinct(&entries, &now, &mut outcomes).await;
            left = later;
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(unknown("nothing was heard of it")))).collect()
    }

    async fn enqueue_distinct(&self, entries: &[Entry], which: &[usize], outcomes: &mut [Option<Result<Enqueued>>]) {
        let queues = self.ensure_queues_of(entries, which).await;
        let mut go = Vec::with_capacity(which.len());
        for &index in which {
            let entry = &entries[index];
            let ready = queues.get(&entry.address.queue).is_none_or(Option::is_none);
            if let Err(error) = self.check_size(OPERATION, &entry.body) {
                outcomes[index] = Some(Err(error));
            } else if ready {
                go.push(index);
            }
        }
        for &index in which.iter().filter(|_| queues.values().any(Option::is_some)) {
            if let (None, Some(Some(error))) = (&outcomes[index], queues.get(&entries[index].address.queue)) {
                outcomes[index] = Some(Err(repeat(error, OPERATION)));
            }
        }
        go.retain(|index| outcomes[*index].is_none());
        let reserved = self.reserve_all(entries, &go).await;
        let mut publish = Vec::with_capacity(go.len());
        for (index, reserved) in go.into_iter().zip(reserved) {
            match reserved {
                Ok(Reserved::Taken) => outcomes[index] = Some(Ok(Enqueued::Duplicate)),
                Ok(Reserved::Free { review }) => publish.push((index, review)),
                Err(error) => outcomes[index] = Some(Err(error)),
            }
        }
        crash_point("nats.enqueue.reserved");
        self.publish_entries(entries, publish, outcomes).await;
    }

    /// Makes the queues of pending entries; the error of those that could not be made.
    async fn ensure_queues_of(&self, entries: &[Entry], which: &[usize]) -> HashMap<QueueName, Option<StorageError>> {
        let mut queues = HashMap::new();
        for entry in which.iter().map(|i| &entries[*i]).filter(|entry| entry.status == JobStatus::Pending) {
            if !queues.contains_key(&entry.address.queue) {
                let made = self.ensure_queue(&entry.address.queue).await;
                queues.insert(entry.address.queue.clone(), made.err());
            }
        }
        queues
    }

    async fn publish_entries(
        &self,
        entries: &[Entry],
        publish: Vec<(usize, bool)>,
        outcomes: &mut [Option<Result<Enqueued>>],
    ) {
        let messages = publish.iter().map(|(index, review)| self.entry_message(&entries[*index], *review));
        let answers = self.streams.publish_all(Box::new(messages)).await;
        crash_point("nats.enqueue.published");
        let mut unsure = Vec::new();
        for ((index, _), answer) in publish.into_iter().zip(answers) {
            match answer {
                Ok(_) => outcomes[index] = Some(Ok(Enqueued::Stored)),
                Err(PublishFailure::SubjectTaken | PublishFailure::Conflict) => {
                    outcomes[index] = Some(Ok(Enqueued::Duplicate));
                }
                Err(PublishFailure::NoStream) => {
                    self.forget_queue(&entries[index].address.queue);
                    unsure.push((index, unknown("no stream takes it")));
                }
                Err(PublishFailure::Unknown(failure)) => unsure.push((index, unknown(&failure.to_string()))),
                Err(failure) => outcomes[index] = Some(Err(self.streams.publish_error(OPERATION, failure))),
            }
        }
        if !unsure.is_empty() {
            self.resolve(entries, unsure, outcomes).await;
        }
    }

    /// Finds out what became of entries, and stores those of which nothing is found.
    pub(super) async fn resolve(
        &self,
        entries: &[Entry],
        mut unsure: Vec<(usize, StorageError)>,
        outcomes: &mut [Option<Result<Enqueued>>],
    ) {
        let deadline = Instant::now() + 2 * self.connection.request_timeout();
        let mut pause = FIRST_PAUSE;
        loop {
            let addresses: Vec<Address> = unsure.iter().map(|(index, _)| entries[*index].address.clone()).collect();
            let traces = self.traces(&addresses).await;
            let mut missing = Vec::new();
            let mut unseen = Vec::new();
            for ((index, error), traces) in unsure.into_iter().zip(traces) {
                match traces {
                    Ok(traces) if traces.show_life(entries[index].generation) => {
                        outcomes[index] = Some(Ok(Enqueued::Stored));
                    }
                    Ok(_) => missing.push((index, error)),
                    Err(error) => unseen.push((index, error)),
                }
            }
            let queues: Vec<usize> = missing.iter().map(|(index, _)| *index).collect();
            let made = self.ensure_queues_of(entries, &queues).await;
            let (missing, unready): (Vec<_>, Vec<_>) = missing
                .into_iter()
                .partition(|(index, _)| made.get(&entries[*index].address.queue).is_none_or(Option::is_none));
            unseen.extend(unready);
            let messages = missing.iter().map(|(index, _)| self.entry_message(&entries[*index], true));
            let answers = self.streams.publish_all(Box::new(messages)).await;
            for ((index, error), answer) in missing.into_iter().zip(answers) {
                match answer {
                    // What holds the address now is the first attempt, which was still on its way.
                    Ok(_) | Err(PublishFailure::SubjectTaken | PublishFailure::Conflict) => {
                        outcomes[index] = Some(Ok(Enqueued::Stored));
                    }
                    Err(PublishFailure::NoStream) => {
                        self.forget_queue(&entries[index].address.queue);
                        unseen.push((index, error));
                    }
                    Err(PublishFailure::Unknown(failure)) => unseen.push((index, unknown(&failure.to_string()))),
                    Err(failure) => outcomes[index] = Some(Err(self.streams.publish_error(OPERATION, failure))),
                }
            }
            unsure = unseen;
            if unsure.is_empty() || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        for (index, error) in unsure {
            let connected = self.connection.is_connected();
            let kind = if connected { error.kind() } else { StorageErrorKind::Unreachable };
            let location = self.connection.location();
            let detail = format!("NATS at {location} did not say whether the job was stored: {error}");
            let told = StorageError::new(kind, OPERATION, detail).with_source(error);
            outcomes[index] = Some(Err(if connected { told.with_hint(SILENT) } else { told }));
        }
    }

    /// Reads everything there is of ids at their addresses.
    pub(super) async fn traces(&self, addresses: &[Address]) -> Vec<Result<Traces>> {
        let now = match self.now("look for jobs").await {
            Ok(now) => now,
            Err(error) => {
                return addresses.iter().map(|_| Err(repeat(&error, OPERATION))).collect();
            }
        };
        let what = addresses
            .iter()
            .flat_map(|Address { id, queue, priority, .. }| {
                [
                    (self.names.queue_stream(queue), self.names.job(queue, *priority, id)),
                    (self.names.scheduled_stream(), self.names.scheduled(id)),
                    (self.names.dead_stream(), self.names.dead(queue, id)),
                    (self.names.results_stream(), self.names.result(id)),
                ]
            })
            .collect();
        let mut found = self.streams.last_messages(what).await.into_iter();
        let mut next = || match found.next() {
            Some(found) => found.map_err(|failure| self.streams.error("look for jobs", failure)),
            None => Ok(None),
        };
        let mut one = || {
            // All four are taken out before one is looked at, so that the next address begins at its own.
            let (queued, scheduled, dead, result) = (next(), next(), next(), next());
            Ok(Traces {
                queued: queued?,
                scheduled: scheduled?,
                dead: dead?,
                result: result?.filter(|result| is_live(result, now)),
            })
        };
        addresses.iter().map(|_| one()).collect()
    }

    fn entry_message(&self, entry: &Entry, review: bool) -> Outgoing {
        if entry.status == JobStatus::Pending {
            self.job_message(entry, review)
        } else {
            self.scheduled_message(entry, &Revisions::default())
        }
    }

    /// A job on its way into its queue. A new one has no headers.
    pub(super) fn job_message(&self, entry: &Entry, review: bool) -> Outgoing {
        let mut headers = async_nats::HeaderMap::new();
        if review {
            headers.insert(REVIEW, "1");
        }
        if entry.run != 1 {
            headers.insert(RUN, entry.run.to_string().as_str());
        }
        if entry.generation != 0 {
            headers.insert(GENERATION, entry.generation.to_string().as_str());
        }
        let Address { id, queue, priority, .. } = &entry.address;
        Outgoing {
            subject: self.names.job(queue, *priority, id),
            headers: (!headers.is_empty()).then_some(headers),
            payload: entry.body.clone(),
        }
    }
}

fn unknown(detail: &str) -> StorageError {
    StorageError::new(StorageErrorKind::Timeout, OPERATION, detail)
}
