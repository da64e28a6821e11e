//! [`Adjuster`]: changes, from outside, what of a worker can change while it runs.
//!
//! Invariant: what is in effect is one value, changed as a whole and never to one that a worker could not be built with.
//! The serving loop follows it; everyone else reads it where it is used. Reads no configuration, and changes nothing of
//! the store: other workers are not concerned.

use std::{collections::BTreeSet, time::Duration};

use naq_models::QueueName;
use tokio::sync::watch;

/// What of a worker can change while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustable {
    /// How many jobs run at once, at least 1. With fewer, those that run may end, and none is started until fewer than that
    /// run; with more, more are started at once.
    pub concurrency: usize,
    /// Queues from which this worker claims nothing; what it had claimed of them and not started is handed back. Those that
    /// it does not serve are passed over.
    pub paused: BTreeSet<QueueName>,
    /// The longest timeout that is granted to a job that starts from now on, whatever it asks for; `None` for no limit.
    pub max_job_duration: Option<Duration>,
    /// How long running jobs may go on after a request to stop. The value at that request counts.
    pub shutdown_timeout: Duration,
    /// A suspect that has been started and lost with its worker so many times becomes a dead letter. At least 1.
    pub max_crashes: u32,
}

/// Why something cannot be adjusted so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdjustError {
    /// The worker would run nothing.
    #[error("a worker's concurrency must be at least 1")]
    Concurrency,
    /// Every suspect would be a dead letter.
    #[error("max_crashes must be at least 1")]
    MaxCrashes,
}

/// Adjusts one worker while it runs, and before. Cheap to clone; all clones are about the same worker.
///
/// ```
/// # async fn example(storage: naq_services::storage::SharedStorage) -> Result<(), Box<dyn std::error::Error>> {
/// use naq_worker::{Shutdown, Worker};
///
/// let worker = Worker::builder(storage).concurrency(4).build()?;
/// let adjuster = worker.adjuster();
/// let running = tokio::spawn(worker.run(Shutdown::new()));
/// adjuster.adjust(|worker| worker.concurrency = 8)?;
/// # running.await??;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Adjuster(watch::Sender<Adjustable>);

impl Adjuster {
    pub(crate) fn new(initial: Adjustable) -> Self {
        Self(watch::Sender::new(initial))
    }

    /// What is in effect.
    #[must_use]
    pub fn current(&self) -> Adjustable {
        self.0.borrow().clone()
    }

    /// Changes what is in effect, all at once; `true` if anything differs from before. The worker follows within
    /// milliseconds; one that has ended does not. Others wait for `change`, which must not use an adjuster of this worker.
    ///
    /// # Errors
    /// If no worker could be built like that. Then nothing is changed.
    pub fn adjust(&self, change: impl FnOnce(&mut Adjustable)) -> Result<bool, AdjustError> {
        let mut outcome = Ok(());
        let changed = self.0.send_if_modified(|current| {
            let mut next = current.clone();
            change(&mut next);
            outcome = check(&next);
            let differs = outcome.is_ok() && next != *current;
            if differs {
                *current = next;
            }
            differs
        });
        outcome.map(|()| changed)
    }

    /// What is in effect, to look at one thing of it. Not to be held over anything that takes time.
    pub(crate) fn look(&self) -> watch::Ref<'_, Adjustable> {
        self.0.borrow()
    }

    /// Hears of every change from now on.
    pub(crate) fn follow(&self) -> watch::Receiver<Adjustable> {
        self.0.subscribe()
    }
}

/// Whether a worker can be like that.
pub(crate) fn check(adjustable: &Adjustable) -> Result<(), AdjustError> {
    if adjustable.concurrency == 0 {
        return Err(AdjustError::Concurrency);
    }
    if adjustable.max_crashes == 0 {
        return Err(AdjustError::MaxCrashes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_worker_could_be_built_with_changes_nothing() {
        let initial = Adjustable {
            concurrency: 4,
            paused: BTreeSet::new(),
            max_job_duration: None,
            shutdown_timeout: Duration::from_secs(30),
            max_crashes: 3,
        };
        let adjuster = Adjuster::new(initial.clone());
        let mut heard = adjuster.follow();
        let nothing = adjuster.adjust(|worker| {
            worker.shutdown_timeout = Duration::ZERO;
            worker.concurrency = 0;
        });
        assert_eq!(nothing, Err(AdjustError::Concurrency));
        assert_eq!(adjuster.adjust(|worker| worker.max_crashes = 0), Err(AdjustError::MaxCrashes));
        assert_eq!(adjuster.adjust(|worker| worker.concurrency = 4), Ok(false));
        assert_eq!(adjuster.current(), initial);
        assert!(!heard.has_changed().unwrap(), "nobody is woken for nothing");
        assert_eq!(adjuster.clone().adjust(|worker| worker.concurrency = 5), Ok(true));
        assert_eq!(heard.borrow_and_update().concurrency, 5);
    }
}
