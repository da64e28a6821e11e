//! [`ScheduleStatus`]: where a schedule stands.
//!
//! Invariant: only an active schedule becomes due. The words are stored and shown in lower case.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where a schedule stands. Serialized in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleStatus {
    /// Becomes due.
    Active,
    /// Held by a person until it is resumed.
    Paused,
    /// Has had all its runs, or its end has come.
    Completed,
    /// Ended by a person.
    Cancelled,
}

impl ScheduleStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Active, Self::Paused, Self::Completed, Self::Cancelled];

    /// The lower-case name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ScheduleStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no status of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a schedule status: active, paused, completed or cancelled")]
pub struct ScheduleStatusError(String);

impl FromStr for ScheduleStatus {
    type Err = ScheduleStatusError;
    fn from_str(text: &str) -> Result<Self, ScheduleStatusError> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or_else(|| ScheduleStatusError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for status in ScheduleStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_string(&status).unwrap(), format!("\"{status}\""));
        }
        assert!("done".parse::<ScheduleStatus>().is_err());
    }
}
