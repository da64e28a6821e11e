//! The scheduled store: jobs that wait for their time, for their next attempt, or for other jobs.
//!
//! Invariant: one entry per id, changed by compare-and-set on its revision, removed by deleting the messages of its
//! revisions, so that a newer entry stays. What an entry replaced is deleted soon, and at the latest with it. What a leader
//! needs to know is in headers; bodies are read when they are due.

use naq_models::{Address, JobId, JobStatus, Priority, QueueName, Timestamp};

use super::{
    Shared,
    names::{GENERATION, KIND, PRIORITY, PROMOTING, QUEUE, RUN, RUN_AT, STATUS, STORED_AT, header_text},
};
use crate::{
    connection::Outgoing,
    storage::{Entry, Result, ScheduledEntry, StorageError, StorageErrorKind},
    streams::{PublishFailure, Revisions, StoredMessage},
};

const ATTEMPTS: usize = 4;

/// A scheduled entry, and whether a leader is moving it.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) entry: ScheduledEntry,
    pub(super) revisions: Revisions,
    pub(super) promoting: bool,
}

impl Waiting {
    /// Reads an entry; `None` if it is not one of ours.
    pub(super) fn read(id: JobId, message: StoredMessage) -> Option<Self> {
        let (promoting, revisions) = (is_promoting(&message), Revisions::of(&message));
        let headers = &message.headers;
        let time = |name| headers.number::<i64>(name).and_then(Timestamp::from_unix_millis);
        let entry = ScheduledEntry {
            address: Address {
                id,
                queue: QueueName::new(headers.get(QUEUE)?).ok()?,
                priority: Priority::new(headers.number(PRIORITY)?).ok()?,
                stored_at: time(STORED_AT).unwrap_or(message.time),
            },
            status: headers.get(STATUS)?.parse().ok()?,
            run_at: time(RUN_AT),
            run: headers.number(RUN)?,
            revision: message.sequence,
            body: message.payload,
        };
        Some(Self { entry, revisions, promoting })
    }
}

/// When an entry is due, if it waits for a time; readable without its body.
pub(super) fn due_at(message: &StoredMessage) -> Option<Timestamp> {
    if waits_for_jobs(message) {
        return None;
    }
    message.headers.number(RUN_AT).and_then(Timestamp::from_unix_millis)
}

/// Whether a leader is moving an entry.
pub(super) fn is_promoting(message: &StoredMessage) -> bool {
    message.headers.get(PROMOTING).is_some()
}

/// Whether an entry waits for other jobs; readable without its body.
pub(super) fn waits_for_jobs(message: &StoredMessage) -> bool {
    message.headers.get(STATUS) == Some(JobStatus::Waiting.as_str())
}

impl Shared {
    /// An entry on its way into the store, to follow these revisions of it.
    pub(super) fn scheduled_message(&self, entry: &Entry, present: &Revisions) -> Outgoing {
        let mut headers = async_nats::HeaderMap::new();
        let address = &entry.address;
        present.expect(&mut headers);
        headers.insert(QUEUE, address.queue.as_str());
        headers.insert(PRIORITY, address.priority.to_string().as_str());
        headers.insert(STATUS, entry.status.as_str());
        headers.insert(RUN, entry.run.to_string().as_str());
        headers.insert(GENERATION, entry.generation.to_string().as_str());
        headers.insert(KIND, header_text(&entry.kind).as_str());
        headers.insert(STORED_AT, address.stored_at.unix_millis().to_string().as_str());
        if let Some(run_at) = entry.run_at {
            headers.insert(RUN_AT, run_at.unix_millis().to_string().as_str());
        }
        Outgoing { subject: self.names.scheduled(&address.id), headers: Some(headers), payload: entry.body.clone() }
    }

    /// The same entry, marked as being moved by a leader, expecting it to be as it was read.
    pub(super) fn promoting_message(&self, waiting: &Waiting, generation: u64) -> Outgoing {
        let ScheduledEntry { address, status, run_at, run, body, .. } = waiting.entry.clone();
        let entry = Entry { address, status, run_at, kind: String::new(), run, generation, body };
        let mut message = self.scheduled_message(&entry, &waiting.revisions);
        if let Some(headers) = &mut message.headers {
            headers.insert(PROMOTING, "1");
        }
        message
    }

    /// Stores entries for the next run of jobs that are in their queues: what is there already stays if it is of the
    /// same run or a later one, and is replaced if it is of an earlier one.
    pub(super) async fn write_scheduled(&self, entries: &[&Entry]) -> Vec<Result<()>> {
        let mut outcomes: Vec<Option<Result<()>>> = entries.iter().map(|_| None).collect();
        let mut open: Vec<(usize, Revisions)> = (0..entries.len()).map(|index| (index, Revisions::default())).collect();
        let mut replaced = Vec::new();
        for _ in 0..ATTEMPTS {
            let messages = open.iter().map(|(i, present)| self.scheduled_message(entries[*i], present));
            let answers = self.streams.publish_all(Box::new(messages)).await;
            let mut look = Vec::new();
            for ((index, present), answer) in open.drain(..).zip(answers) {
                match answer {
                    Ok(_) => {
                        outcomes[index] = Some(Ok(()));
                        replaced.extend((present.last() > 0).then_some(present));
                    }
                    Err(PublishFailure::Conflict) => look.push(index),
                    Err(PublishFailure::Unknown(failure)) => {
                        outcomes[index] = Some(Err(self.streams.error("schedule", failure.into())));
                        look.push(index);
                    }
                    Err(failure) => outcomes[index] = Some(Err(self.streams.publish_error("schedule", failure))),
                }
            }
            if look.is_empty() {
                break;
            }
            let ids: Vec<&JobId> = look.iter().map(|index| &entries[*index].address.id).collect();
            for (index, found) in look.into_iter().zip(self.scheduled_messages(&ids).await) {
                match found {
                    Ok(Some(found)) if found.headers.number::<u32>(RUN).unwrap_or(0) >= entries[index].run => {
                        outcomes[index] = Some(Ok(()));
                    }
                    Ok(Some(found)) => open.push((index, Revisions::of(&found))),
                    Ok(None) => open.push((index, Revisions::default())),
                    Err(error) => outcomes[index] = Some(Err(error)),
                }
            }
        }
        self.drop_replaced(replaced).await;
        let unsettled = || StorageError::new(StorageErrorKind::Timeout, "schedule", "the entry keeps changing");
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(unsettled()))).collect()
    }

    /// The stored entries of ids, as they are.
    pub(super) async fn scheduled_messages(&self, ids: &[&JobId]) -> Vec<Result<Option<StoredMessage>>> {
        let stream = self.names.scheduled_stream();
        let what = ids.iter().map(|id| (stream.clone(), self.names.scheduled(id))).collect();
        let found = self.streams.last_messages(what).await;
        found.into_iter().map(|found| found.map_err(|failure| self.streams.error("read scheduled", failure))).collect()
    }

    pub(super) async fn get_scheduled(&self, ids: &[JobId]) -> Result<Vec<Option<ScheduledEntry>>> {
        let before: Vec<Option<u64>> = ids.iter().map(|id| self.due.revision(id)).collect();
        let found = self.scheduled_messages(&ids.iter().collect::<Vec<_>>()).await;
        let mut entries = Vec::with_capacity(ids.len());
        for ((id, before), message) in ids.iter().zip(before).zip(found) {
            let message = message?;
            if let (None, Some(before)) = (&message, before) {
                self.due.gone(id, before);
            }
            entries.push(message.and_then(|message| Waiting::read(id.clone(), message)).map(|waiting| waiting.entry));
        }
        Ok(entries)
    }

    /// Removes what was replaced. What stays is removed with the entry that replaced it.
    async fn drop_replaced(&self, replaced: Vec<Revisions>) {
        for removed in self.streams.remove_all(&self.names.scheduled_stream(), &replaced).await {
            if let Err(failure) = removed {
                tracing::debug!(%failure, "a replaced entry stays until the present one goes");
            }
        }
    }

    /// Removes entries, each only at its revisions, and tells the feeds.
    pub(super) async fn remove_scheduled(&self, entries: Vec<(&JobId, Revisions)>) -> Vec<Result<()>> {
        let (ids, revisions): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let deleted = self.streams.remove_all(&self.names.scheduled_stream(), &revisions).await;
        let mut outcomes = Vec::with_capacity(ids.len());
        for ((id, revision), deleted) in ids.into_iter().zip(revisions.iter().map(Revisions::last)).zip(deleted) {
            if deleted.is_ok() {
                self.due.gone(id, revision);
                self.kv.announce(&self.names.scheduled_bucket(), id.as_str(), revision).await;
            }
            outcomes.push(deleted.map(drop).map_err(|failure| self.streams.error("remove scheduled", failure)));
        }
        outcomes
    }

    /// Removes whatever entries ids have.
    pub(super) async fn clear_scheduled(&self, ids: &[&JobId]) -> Vec<Result<()>> {
        let mut outcomes: Vec<Result<()>> = ids.iter().map(|_| Ok(())).collect();
        let mut there = Vec::new();
        for (index, found) in self.scheduled_messages(ids).await.into_iter().enumerate() {
            match found {
                Ok(Some(message)) => there.push((index, Revisions::of(&message))),
                Ok(None) => {}
                Err(error) => outcomes[index] = Err(error),
            }
        }
        let (which, entries): (Vec<_>, Vec<_>) =
            there.into_iter().map(|(index, revisions)| (index, (ids[index], revisions))).unzip();
        for (index, removed) in which.into_iter().zip(self.remove_scheduled(entries).await) {
            outcomes[index] = removed;
        }
        outcomes
    }

    pub(super) async fn reschedule(&self, entry: Entry, revision: u64) -> Result<()> {
        let id = &entry.address.id;
        let conflict = || {
            StorageError::new(
                StorageErrorKind::Conflict,
                "reschedule",
                format!("job {id} does not wait any more, or has changed"),
            )
        };
        self.check_size("reschedule", &entry.body)?;
        for attempt in 0..ATTEMPTS {
            let found = self.scheduled_messages(&[id]).await.pop().unwrap_or(Ok(None))?;
            let found = found.ok_or_else(conflict)?;
            if attempt > 0 && found.sequence > revision && found.payload == entry.body {
                return Ok(());
            }
            let waiting = Waiting::read(id.clone(), found).ok_or_else(conflict)?;
            if waiting.promoting || waiting.entry.revision != revision {
                return Err(conflict());
            }
            match self.streams.publish(self.scheduled_message(&entry, &waiting.revisions)).await {
                Ok(_) => {
                    self.drop_replaced(vec![waiting.revisions]).await;
                    return Ok(());
                }
                Err(PublishFailure::Conflict) => return Err(conflict()),
                Err(PublishFailure::Unknown(failure)) if attempt + 1 == ATTEMPTS => {
                    return Err(self.streams.error("reschedule", failure.into()));
                }
                Err(PublishFailure::Unknown(_)) => {}
                Err(failure) => return Err(self.streams.publish_error("reschedule", failure)),
            }
        }
        Err(conflict())
    }
}
