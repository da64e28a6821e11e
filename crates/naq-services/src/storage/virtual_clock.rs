//! [`VirtualClock`]: the time of a store in memory that a test moves.
//!
//! Invariant: time stands still but for `advance` and `advance_to`, and never goes back; who waits for time to pass is
//! woken by each move. Only a store that was opened with it goes by it, and only stores in memory can be: see
//! [`Storage::virtual_clock`](super::Storage::virtual_clock).

use std::{sync::Arc, time::Duration};

use naq_models::Timestamp;
use tokio::sync::watch;

/// The clock of a store in memory, for tests. Clones are one clock. A test gets it from its test kit.
///
/// Everything that the store compares with its time goes by it: due times, `--delay`, recurring jobs, how long results,
/// unique keys and other keys are kept, the times in envelopes and results. What guards processes against each other
/// stays in real time: leases, timeouts of handlers, the scheduler's lock, the list of workers.
#[derive(Debug, Clone)]
pub struct VirtualClock(Arc<watch::Sender<Timestamp>>);

impl VirtualClock {
    /// A clock that stands at `start`.
    #[cfg(feature = "sqlite")]
    pub(crate) fn starting_at(start: Timestamp) -> Self {
        Self(Arc::new(watch::Sender::new(start)))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    /// Moves the time on; whole milliseconds count. Runs nothing by itself. Returns the new time.
    pub fn advance(&self, span: Duration) -> Timestamp {
        self.0.send_modify(|now| *now = now.saturating_add(span));
        self.now()
    }

    /// Moves the time on to `time`. Runs nothing by itself.
    ///
    /// # Panics
    /// If `time` has passed: time does not go back.
    pub fn advance_to(&self, time: Timestamp) {
        self.0.send_if_modified(|now| {
            let passes = *now < time;
            *now = time.max(*now);
            passes
        });
        let now = self.now();
        assert!(now <= time, "a virtual clock cannot go back from {now} to {time}");
    }

    /// Returns when the time is another than `seen`; at once if it is already.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn moved_from(&self, seen: Timestamp) {
        // The sender is this clock's own, so the wait ends by a move only.
        self.0.subscribe().wait_for(|now| *now != seen).await.ok();
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_moves_on_only_when_it_is_moved() {
        let clock = VirtualClock::starting_at(Timestamp::EPOCH);
        let other = clock.clone();
        assert_eq!(other.advance(Duration::from_micros(1_500)).unix_millis(), 1);
        clock.advance_to(clock.now().saturating_add(Duration::from_secs(1)));
        assert_eq!(other.now().unix_millis(), 1_001);
        let seen = clock.now();
        let (moved, ()) = tokio::join!(async { (other.moved_from(seen).await, other.now()).1 }, async {
            tokio::task::yield_now().await;
            clock.advance_to(seen);
            tokio::task::yield_now().await;
            clock.advance(Duration::from_millis(1));
        });
        assert_eq!(moved.unix_millis(), 1_002);
    }

    #[test]
    #[should_panic(expected = "cannot go back")]
    fn time_does_not_go_back() {
        let clock = VirtualClock::starting_at(Timestamp::EPOCH.saturating_add(Duration::from_secs(1)));
        clock.advance_to(Timestamp::EPOCH);
    }
}
