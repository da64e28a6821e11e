//! [`Shutdown`]: how a running worker or scheduler is asked to stop.
//!
//! Invariant: two steps that only go forward: running, stopping (finish what runs), stopping now (hand everything back).
//! Knows no signals; `signals` turns them into requests.

use tokio_util::sync::CancellationToken;

/// A handle that stops what it was given to. Cheap to clone; all clones are the same handle.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    graceful: CancellationToken,
    now: CancellationToken,
}

impl Shutdown {
    /// A handle that nobody has used yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next step: the first call asks to stop, the second to stop now.
    pub fn request(&self) {
        if self.graceful.is_cancelled() {
            self.now.cancel();
        } else {
            self.graceful.cancel();
        }
    }

    /// Asks to stop now, whatever was asked before.
    pub fn request_now(&self) {
        self.graceful.cancel();
        self.now.cancel();
    }

    /// Whether it was asked to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.graceful.is_cancelled()
    }

    /// Waits until it is asked to stop.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn requested(&self) {
        self.graceful.cancelled().await;
    }

    /// Waits until it is asked to stop now.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn requested_now(&self) {
        self.now.cancelled().await;
    }

    /// Fires at the first step.
    pub(crate) fn graceful(&self) -> &CancellationToken {
        &self.graceful
    }
}
