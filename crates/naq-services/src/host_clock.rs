//! The clock of this host.
//!
//! Invariant: for ids, for order and for people; never compared with a due time, which is the store's.

use std::time::{SystemTime, UNIX_EPOCH};

use naq_models::Timestamp;

/// The time of this host.
#[expect(clippy::disallowed_methods, reason = "asking the store would cost a round trip for each job and event")]
pub(crate) fn host_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since)
}
