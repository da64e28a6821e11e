//! [`JobStatus`] and the table of its transitions.
//!
//! Invariant: [`JobStatus::can_become`] is the only statement of which move is legal; the three terminal states are left
//! only by an explicit new life (`dead retry`, `job retry`), never by a worker.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where a job stands. Serialized in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Waits for its time.
    Scheduled,
    /// Waits for other jobs.
    Waiting,
    /// In its queue, ready to run.
    Pending,
    /// A worker runs it.
    Running,
    /// Failed, waits for its next attempt.
    Retry,
    /// Ended well.
    Completed,
    /// Ended badly; its body is with the dead letters.
    Failed,
    /// Ended before it could end by itself.
    Cancelled,
}

impl JobStatus {
    /// Every status, in the order of a job's life.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Waiting,
        Self::Pending,
        Self::Running,
        Self::Retry,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether the job has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// Whether the job may move from this status to `next`.
    ///
    /// | from | to |
    /// |---|---|
    /// | scheduled, waiting, retry | pending (its time or its dependencies have come), cancelled, failed (undecodable) |
    /// | waiting | scheduled (dependencies done, time not yet come) |
    /// | pending | running, failed (undecodable, poison), cancelled |
    /// | running | completed, failed, cancelled, retry, scheduled (snooze), pending (hand-back, lost worker) |
    /// | failed, cancelled | pending (a new life, asked for by a person) |
    /// | completed | nothing |
    #[must_use]
    pub fn can_become(self, next: Self) -> bool {
        use JobStatus::{Cancelled, Completed, Failed, Pending, Retry, Running, Scheduled, Waiting};
        match self {
            Scheduled | Retry => matches!(next, Pending | Cancelled | Failed),
            Waiting => matches!(next, Pending | Scheduled | Cancelled | Failed),
            Pending => matches!(next, Running | Failed | Cancelled),
            Running => matches!(next, Completed | Failed | Cancelled | Retry | Scheduled | Pending),
            Failed | Cancelled => next == Pending,
            Completed => false,
        }
    }

    /// The lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retry => "retry",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a job status: scheduled, waiting, pending, running, retry, completed, failed or cancelled")]
pub struct StatusError(String);

impl FromStr for JobStatus {
    type Err = StatusError;
    fn from_str(text: &str) -> Result<Self, StatusError> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| StatusError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table, written as a matrix, so that a changed rule shows up as a changed letter.
    #[test]
    fn transitions() {
        let rows = JobStatus::ALL.map(|from| {
            let row: String = JobStatus::ALL.iter().map(|to| if from.can_become(*to) { 'x' } else { '.' }).collect();
            format!("{from:<9} {row}")
        });
        assert_eq!(
            rows,
            [
                "scheduled ..x...xx",
                "waiting   x.x...xx",
                "pending   ...x..xx",
                "running   x.x.xxxx",
                "retry     ..x...xx",
                "completed ........",
                "failed    ..x.....",
                "cancelled ..x.....",
            ]
        );
    }

    #[test]
    fn names_round_trip() {
        for status in JobStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{status}\""));
        }
        assert!("done".parse::<JobStatus>().is_err());
    }
}
