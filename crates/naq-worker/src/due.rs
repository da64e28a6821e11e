//! [`Mover`]: how an entry of the scheduled store leaves it, shared by what is due and what waited for other jobs.
//!
//! Invariant: an entry that can be read enters its queue one `run` further; one that cannot becomes a dead letter, byte for
//! byte.

use naq_models::{DecodeError, Job, JobStatus, Timestamp, WireFormat, wire};
use naq_services::{
    StorageErrorKind,
    storage::{Ending, Entry, Promotion, ScheduledEntry, SharedStorage},
};

use crate::ending::Subject;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mover<'a> {
    pub(crate) storage: &'a SharedStorage,
    pub(crate) format: WireFormat,
}

/// Why an entry cannot be moved.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// This program was not built to read or write it.
    NotBuilt(String),
    /// Nobody can read it.
    Damaged(String),
}

impl Mover<'_> {
    /// The job of an entry.
    pub(crate) fn job(entry: &ScheduledEntry) -> Result<Job, Unreadable> {
        wire::decode(&entry.body, &entry.address).map_err(|error| match error {
            DecodeError::BincodeNotBuilt => Unreadable::NotBuilt(error.to_string()),
            _ => Unreadable::Damaged(error.to_string()),
        })
    }

    /// The job as it enters its queue.
    pub(crate) fn promotion(&self, entry: &ScheduledEntry) -> Result<Promotion, Unreadable> {
        let entered = Entry::new(&Self::job(entry)?.promoted(), JobStatus::Pending, self.format);
        let entered = entered.map_err(|error| Unreadable::NotBuilt(error.to_string()))?;
        Ok(Promotion { revision: entry.revision, entry: entered })
    }

    /// Makes a damaged entry a dead letter; whether it has left the scheduled store.
    pub(crate) async fn bury(&self, entry: &ScheduledEntry, reason: &str, now: Timestamp) -> bool {
        let (result, dead_letter) = Subject::waiting(entry, now, usize::MAX).bury(reason.to_owned());
        let id = &entry.address.id;
        let ending = Ending {
            address: entry.address.clone(),
            result: Some(result),
            dead_letter: Some(dead_letter),
            unique_key: None,
        };
        match self.storage.end(ending).await {
            Ok(_) => true,
            Err(error) if error.kind() == StorageErrorKind::NotFound => false,
            Err(error) => {
                tracing::warn!(job = %id, %error, "an unreadable scheduled job could not be made a dead letter");
                false
            }
        }
    }
}
