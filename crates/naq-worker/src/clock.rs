//! The worker's two clocks: [`BootTime`] for leases and deadlines, [`StoreClock`] for times that are stored.
//!
//! Invariant: whether a lease still holds is judged by a monotonic clock that counts suspension, never by wall time; a
//! stored time is the store's time, taken from an offset that is measured again and again. The only module of this
//! crate that reads a clock.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use naq_models::Timestamp;
use naq_services::{
    Storage, StorageError,
    storage::{VirtualClock, uptime},
};

/// Nanoseconds since the machine booted, including the time it was suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(u64);

impl BootTime {
    pub(crate) fn now() -> Self {
        uptime().into()
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) fn nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this; zero if it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn millis(self) -> i64 {
        i64::try_from(self.0 / 1_000_000).unwrap_or(i64::MAX)
    }
}

impl From<Duration> for BootTime {
    /// Of what [`uptime`] says.
    fn from(uptime: Duration) -> Self {
        Self(u64::try_from(uptime.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The store's clock without asking the store each time: boot time plus a measured offset. Where a test moves the store's
/// clock, it is that clock.
#[derive(Debug)]
pub(crate) struct StoreClock {
    moved: Option<VirtualClock>,
    offset_millis: AtomicI64,
    measured: AtomicU64,
}

impl StoreClock {
    /// Asks the store for the first time.
    pub(crate) async fn measured(storage: &dyn Storage) -> Result<Self, StorageError> {
        let moved = storage.virtual_clock();
        let clock = Self { moved, offset_millis: AtomicI64::new(0), measured: AtomicU64::new(0) };
        clock.measure(storage).await?;
        Ok(clock)
    }

    /// Asks the store and corrects the offset.
    pub(crate) async fn measure(&self, storage: &dyn Storage) -> Result<Timestamp, StorageError> {
        let before = BootTime::now();
        let time = storage.now().await?;
        let after = BootTime::now();
        let middle = BootTime(before.0 + (after.0.saturating_sub(before.0)) / 2);
        self.offset_millis.store(time.unix_millis() - middle.millis(), Ordering::Relaxed);
        self.measured.store(after.0, Ordering::Relaxed);
        Ok(time)
    }

    /// The store's time, from an offset no older than `max_age`.
    pub(crate) async fn fresh(&self, storage: &dyn Storage, max_age: Duration) -> Result<Timestamp, StorageError> {
        let measured = BootTime(self.measured.load(Ordering::Relaxed));
        if BootTime::now().since(measured) > max_age { self.measure(storage).await } else { Ok(self.now()) }
    }

    /// The store's time as far as it is known here.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(BootTime::now())
    }

    /// The store's time at a moment; where a test moves the store's clock, what that clock says now.
    pub(crate) fn at(&self, moment: BootTime) -> Timestamp {
        if let Some(clock) = &self.moved {
            return clock.now();
        }
        let millis = moment.millis().saturating_add(self.offset_millis.load(Ordering::Relaxed));
        Timestamp::from_unix_millis(millis).unwrap_or(Timestamp::EPOCH)
    }

    /// Returns when a test has moved the store's clock from `seen`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn moved_from(&self, seen: Timestamp) {
        match &self.moved {
            Some(clock) => clock.moved_from(seen).await,
            None => std::future::pending().await,
        }
    }
}
