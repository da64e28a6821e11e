//! The clocks of this host.
//!
//! Invariant: its time is for ids, for order and for people; never compared with a due time, which is the store's. Leases are
//! measured with the time since boot.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use naq_models::Timestamp;

/// The time of this host.
#[expect(clippy::disallowed_methods, reason = "asking the store would cost a round trip for each job and event")]
pub(crate) fn host_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since)
}

/// The time since this host was booted, on a clock that nobody sets and that counts suspension: what leases are measured
/// with. Two processes of one host read the same.
#[must_use]
pub fn uptime() -> Duration {
    // Where there is no clock of this kind, the monotonic one counts suspension itself (macOS) or is the best there is.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let clock = rustix::time::ClockId::Monotonic;
    let time = rustix::time::clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
