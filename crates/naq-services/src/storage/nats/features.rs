//! What the server can do, found out and not assumed.
//!
//! Invariant: an option counts as there only when the server echoed it. nats-server 2.9 answers OK to every option that
//! it does not know and drops it; a header that belongs to a dropped option would be stored as mere text.

use std::ops::Range;

use serde::Deserialize;
use serde_json::Value;

use super::super::{StorageError, StorageErrorKind};
use crate::{
    connection::RequestFailure,
    streams::{ApiFailure, NO_JETSTREAM, StreamService},
};

/// The oldest server that naq is tested with.
pub(super) const FLOOR: Version = Version(2, 9, 10);
/// Older ones work, but forget acknowledgements when they are killed.
pub(super) const RECOMMENDED: Version = Version(2, 14, 0);

/// Kills of processes made them forget streams of a cluster (nats-server issue 6888; Jepsen found it mended in 2.10.23).
pub(super) const LOSES_STREAMS: Range<Version> = Version(2, 10, 0)..Version(2, 10, 23);

/// Older ones drop what a message replaces before they find that there is no room for it. 2.9.10 does, 2.15.0 does not; what
/// lies between was not tried.
pub(super) const KEEPS_AT_LIMIT: Version = Version(2, 10, 0);

/// What the server says of itself and of the account.
#[derive(Debug, Clone)]
pub(super) struct Features {
    /// `api.level`; 0 for servers before 2.11, which have none.
    pub(super) api_level: u64,
    /// The account's limit of stored bytes; -1 for none.
    pub(super) max_storage: i64,
    pub(super) storage: i64,
}

/// Major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u64, pub(super) u64, pub(super) u64);

impl Version {
    /// Reads `2.14.0`, `v2.15.0-RC.1`; what cannot be read counts as 0.
    pub(super) fn parse(text: &str) -> Self {
        let mut numbers =
            text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        Self(next(), next(), next())
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[derive(Deserialize)]
struct Account {
    #[serde(default)]
    storage: i64,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    api: Api,
}

#[derive(Default, Deserialize)]
struct Limits {
    #[serde(default)]
    max_storage: i64,
}

#[derive(Default, Deserialize)]
struct Api {
    #[serde(default)]
    level: u64,
}

impl Features {
    /// Asks the server.
    ///
    /// # Errors
    /// [`StorageErrorKind::Incompatible`] if it has no JetStream or is older than [`FLOOR`].
    pub(super) async fn detect(streams: &StreamService) -> Result<Self, StorageError> {
        let location = streams.connection().location();
        let version = Version::parse(&streams.connection().server_version());
        let incompatible = |detail: String| StorageError::new(StorageErrorKind::Incompatible, "open", detail);
        if version < FLOOR {
            return Err(incompatible(format!("the server at {location} is nats-server {version}"))
                .with_hint(format!("naq needs {FLOOR} or later; {RECOMMENDED} or later is recommended")));
        }
        let account: Account = match streams.api("INFO", Value::Null).await {
            Ok(account) => account,
            Err(ApiFailure::Request(RequestFailure::NoResponders)) => {
                return Err(incompatible(format!("the server at {location} has no JetStream")).with_hint(NO_JETSTREAM));
            }
            Err(failure) => return Err(streams.error("open", failure)),
        };
        Ok(Self { api_level: account.api.level, max_storage: account.limits.max_storage, storage: account.storage })
    }

    /// Whether to ask for messages that expire by themselves.
    pub(super) fn may_have_message_ttl(&self) -> bool {
        self.api_level >= 1
    }

    /// Whether to ask for streams that take messages all or none.
    pub(super) fn may_have_atomic_batches(&self) -> bool {
        self.api_level >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version::parse("2.9.10") < Version::parse("2.10.1"));
        assert_eq!(Version::parse("v2.15.0-RC.1"), Version(2, 15, 0));
        assert!(Version::parse("garbage") < FLOOR);
    }
}
