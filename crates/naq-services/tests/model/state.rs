//! The model: what a store holds, as plainly as it can be said.

use bytes::Bytes;
use naq_models::{Job, JobStatus};

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Nowhere,
    /// In its queue; `turn` orders those that were never claimed.
    Queued {
        turn: u64,
        held: bool,
    },
    /// In the scheduled store. The revision is what the store says it is.
    Waits {
        status: JobStatus,
        revision: u64,
    },
}

/// A kept result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) body: Bytes,
    pub(crate) revision: u64,
}

/// An id, and everything that a store knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The job as it was stored last.
    pub(crate) job: Job,
    pub(crate) place: Place,
    pub(crate) result: Option<Kept>,
    pub(crate) letter: bool,
}

impl Entry {
    pub(crate) fn new(job: Job) -> Self {
        Self { job, place: Place::Nowhere, result: None, letter: false }
    }

    /// Whether the id may be enqueued.
    pub(crate) fn is_free(&self) -> bool {
        self.place == Place::Nowhere && self.result.is_none()
    }

    /// Whether a new life may begin.
    pub(crate) fn has_ended(&self) -> bool {
        self.place == Place::Nowhere && self.result.is_some()
    }

    pub(crate) fn is_held(&self) -> bool {
        matches!(self.place, Place::Queued { held: true, .. })
    }

    /// The revision and status of what waits.
    pub(crate) fn waits(&self) -> Option<(u64, JobStatus)> {
        match self.place {
            Place::Waits { status, revision } => Some((revision, status)),
            _ => None,
        }
    }
}

/// A key, at its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) value: Bytes,
    pub(crate) revision: u64,
}
