//! The two clocks of a store: wall time for people and due times, boot time for leases and locks. Wall time is the host's,
//! or, for a store in memory, one that a test moves.
//!
//! Invariant: a lease or lock is judged by time since boot (counting suspension) together with an id of that boot, so that
//! a step of the wall clock neither frees what is held nor holds what is free. Nothing else in this backend reads a clock.

use std::{sync::OnceLock, time::Duration};

use naq_models::Timestamp;

use crate::storage::{VirtualClock, uptime};

/// Both clocks at one moment, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Since 1970.
    pub(super) wall: i64,
    /// Since boot.
    pub(super) boot: i64,
}

/// Where a store's wall time comes from.
#[derive(Debug, Clone)]
pub(super) enum Clock {
    /// The host.
    Host,
    /// A test.
    Virtual(VirtualClock),
}

impl Clock {
    pub(super) fn now(&self) -> Moment {
        Moment { wall: self.wall().unix_millis(), boot: boot_millis() }
    }

    pub(super) fn wall(&self) -> Timestamp {
        match self {
            Self::Host => wall_now(),
            Self::Virtual(clock) => clock.now(),
        }
    }

    /// Returns when wall time was moved from `seen`; time that passes by itself is waited for by sleeping.
    pub(super) async fn moved_from(&self, seen: Timestamp) {
        match self {
            Self::Host => std::future::pending().await,
            Self::Virtual(clock) => clock.moved_from(seen).await,
        }
    }
}

/// The host's wall clock.
pub(super) fn wall_now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the clock of a store on this host is the host's: its one home")]
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since)
}

/// A duration in milliseconds, as stored; at most what an `i64` holds.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The moment `duration` after `from`, both in milliseconds of one clock.
pub(super) fn after(from: i64, duration: Duration) -> i64 {
    from.saturating_add(millis(duration))
}

fn boot_millis() -> i64 {
    millis(uptime())
}

/// Tells one boot of this host from another.
///
/// Without a boot id of the kernel it is the hour of the boot as far as the two clocks tell; a step of the wall clock by
/// an hour or more then frees what was held, which costs a second run but loses nothing.
pub(super) fn boot_id() -> i64 {
    static BOOT: OnceLock<i64> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(15).collect();
        i64::from_str_radix(&digits, 16).unwrap_or_else(|_| (wall_now().unix_millis() - boot_millis()) / 3_600_000)
    })
}
