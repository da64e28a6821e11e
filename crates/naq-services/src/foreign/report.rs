//! [`ForeignReport`]: what was brought over, and what was left where it is.
//!
//! Invariant: every record that was read is counted once, as brought over or as left; one that naq has and that could not
//! be removed is counted as both. Examples are bounded; counts are not.

use naq_models::JobStatus;
use serde::Serialize;

use super::{Left, arrival::Became};

/// Examples that are kept of each reason.
const MAX_EXAMPLES: usize = 10;

/// What became of the records of another system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ForeignReport {
    /// Jobs that are in their queues now.
    pub pending: u64,
    /// Jobs that wait for their time.
    pub scheduled: u64,
    /// Jobs that wait for other jobs.
    pub waiting: u64,
    /// Recurring jobs.
    pub recurring: u64,
    /// Dead letters.
    pub failed: u64,
    /// What was brought over by an earlier call, and is removed there now.
    pub already_here: u64,
    /// What stays there, by reason.
    pub left: Vec<LeftBehind>,
}

/// Records that stay where they are, for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftBehind {
    /// Why.
    pub reason: LeftReason,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<LeftExample>,
}

/// A record that stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftExample {
    /// Where it lies: stream and sequence, id, or name of the file.
    pub place: String,
    /// What else there is to say; may be empty.
    pub detail: String,
}

/// Why a record stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeftReason {
    /// It is not JSON: a pickle, MessagePack, damaged text.
    NotJson,
    /// It is JSON, or a record, but no job of that system.
    NotAJob,
    /// Its checksum is wrong, or cannot be checked.
    Damaged,
    /// It has arguments by position and by name; a job of naq has one of them.
    ArgsOfBothKinds,
    /// It failed there, and its arguments were not kept in a form that can be read.
    ArgsNotKept,
    /// A delayed job that is paused; naq can only pause recurring ones.
    Paused,
    /// A worker there has taken it.
    Running,
    /// It has ended there.
    Ended,
    /// Another job, or schedule, here has its id.
    IdTaken,
    /// naq does not take it: a name, a duration, a cron expression, its size.
    Refused,
    /// It is stored here, and was changed or taken there before it could be removed.
    ChangedMeanwhile,
}

impl LeftReason {
    /// The reason in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NotJson => "not JSON",
            Self::NotAJob => "not a job of that system",
            Self::Damaged => "damaged, or its checksum cannot be checked",
            Self::ArgsOfBothKinds => "arguments by position and by name",
            Self::ArgsNotKept => "failed, and its arguments were not kept in a readable form",
            Self::Paused => "paused, and not recurring",
            Self::Running => "taken by a worker there",
            Self::Ended => "has ended there",
            Self::IdTaken => "another job here has its id",
            Self::Refused => "not taken by naq",
            Self::ChangedMeanwhile => "stored here, but changed there before it could be removed",
        }
    }
}

impl ForeignReport {
    /// How many records stay that nobody has dealt with: those that have ended there are nobody's business any more.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.left.iter().filter(|left| left.reason != LeftReason::Ended).map(|left| left.count).sum()
    }

    pub(super) fn count(&mut self, became: Became) {
        *match became {
            Became::Job(JobStatus::Scheduled) => &mut self.scheduled,
            Became::Job(JobStatus::Waiting) => &mut self.waiting,
            Became::Job(JobStatus::Failed) => &mut self.failed,
            Became::Job(_) => &mut self.pending,
            Became::Schedule => &mut self.recurring,
            Became::WasHere => &mut self.already_here,
        } += 1;
    }

    pub(super) fn leave(&mut self, place: String, Left { reason, detail }: Left) {
        let at = self.left.iter().position(|left| left.reason == reason).unwrap_or_else(|| {
            self.left.push(LeftBehind { reason, count: 0, examples: Vec::new() });
            self.left.len() - 1
        });
        let left = &mut self.left[at];
        left.count += 1;
        if left.examples.len() < MAX_EXAMPLES {
            left.examples.push(LeftExample { place, detail });
        }
    }
}
