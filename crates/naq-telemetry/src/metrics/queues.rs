//! The numbers of queues, read from the store beside scrapes: [`QueueNumbers`].
//!
//! Invariant: a scrape takes what was read last and never waits for the store. The store is asked only while somebody
//! scrapes, and so seldom that asking takes a twentieth of the time at most. Numbers that could not be renewed are dropped
//! rather than shown as if they were true.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use naq_services::{StorageError, storage::SharedStorage};
use tokio::{
    sync::SetOnce,
    time::{Instant, sleep, timeout},
};

use super::series::OTHER;

/// Queues that are shown apart; the rest is summed up.
const MAX_QUEUES: usize = 1000;
/// Between two readings, at least.
const PERIOD: Duration = Duration::from_secs(5);
/// Asking takes at most one part in so many of the time.
const SHARE: u32 = 20;
/// One reading takes so long at most.
const READ_MAX: Duration = Duration::from_secs(30);
/// So long after a scrape nobody is expected to scrape any more.
const IDLE: Duration = Duration::from_secs(300);
/// Numbers are shown for so long, at least.
const FRESH: Duration = Duration::from_secs(60);

/// The numbers of one queue, as they were read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct QueueNumber {
    pub(super) queue: Box<str>,
    /// By [`STATES`].
    pub(super) jobs: [u64; STATES.len()],
    pub(super) dead: u64,
    pub(super) oldest_pending: Duration,
}

/// The states of [`QueueNumber::jobs`].
pub(super) const STATES: [&str; 5] = ["pending", "running", "scheduled", "retry", "waiting"];

/// What is known of queues.
#[derive(Debug)]
pub(super) struct QueueNumbers {
    store: SetOnce<SharedStorage>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    scraped: Instant,
    numbers: Arc<[QueueNumber]>,
    /// After this they are not shown.
    until: Instant,
}

impl Default for QueueNumbers {
    fn default() -> Self {
        let now = Instant::now();
        // Whoever offers metrics expects a scrape soon.
        Self { store: SetOnce::new(), state: Mutex::new(State { scraped: now, numbers: Arc::new([]), until: now }) }
    }
}

impl QueueNumbers {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which store to read; the first one counts.
    pub(super) fn set_store(&self, store: SharedStorage) {
        if self.store.set(store).is_err() {
            tracing::warn!("metrics show the queues of the store that was named first");
        }
    }

    /// What was read last, for a scrape; nothing if that was too long ago.
    pub(super) fn scraped(&self) -> Arc<[QueueNumber]> {
        let now = Instant::now();
        let mut state = self.state();
        state.scraped = now;
        if now > state.until { Arc::new([]) } else { Arc::clone(&state.numbers) }
    }

    /// Reads while somebody scrapes; never ends.
    pub(super) async fn keep_read(&self) {
        let store = self.store.wait().await;
        let mut failed = false;
        loop {
            let begun = Instant::now();
            let read = timeout(READ_MAX, read(store)).await;
            let pause = PERIOD.max(begun.elapsed() * SHARE);
            match read {
                Ok(Ok(numbers)) => {
                    failed = false;
                    let mut state = self.state();
                    (state.numbers, state.until) = (numbers.into(), Instant::now() + FRESH.max(pause * 3));
                }
                // Said once for each time that the store is away: `/readyz` and the workers say so too.
                Ok(Err(error)) if !failed => {
                    failed = true;
                    tracing::warn!(%error, "the numbers of queues cannot be read for metrics");
                }
                Err(_) if !failed => {
                    failed = true;
                    tracing::warn!("the store did not tell the numbers of queues within {} s", READ_MAX.as_secs());
                }
                Ok(Err(_)) | Err(_) => {}
            }
            sleep(pause).await;
            while self.state().scraped.elapsed() > IDLE {
                sleep(PERIOD).await;
            }
        }
    }
}

#[cfg(test)]
impl QueueNumbers {
    /// As if these had been read.
    pub(super) fn show(&self, numbers: Vec<QueueNumber>) {
        let mut state = self.state();
        (state.numbers, state.until) = (numbers.into(), Instant::now() + FRESH);
    }

    /// As if that had been long ago.
    pub(super) fn outdate(&self) {
        self.state().until = Instant::now() - Duration::from_millis(1);
    }
}

async fn read(store: &SharedStorage) -> Result<Vec<QueueNumber>, StorageError> {
    let stats = store.queue_stats(None).await?;
    let now = store.now().await?;
    let numbers = stats.iter().map(|stats| QueueNumber {
        queue: stats.queue.as_str().into(),
        jobs: [stats.pending.iter().sum(), stats.running, stats.scheduled, stats.retry, stats.waiting],
        dead: stats.failed,
        oldest_pending: stats.oldest_pending.map(|stored| now.since(stored)).unwrap_or_default(),
    });
    Ok(bounded(numbers.collect()))
}

/// The first queues by name, and the rest as one.
fn bounded(mut numbers: Vec<QueueNumber>) -> Vec<QueueNumber> {
    if numbers.len() > MAX_QUEUES {
        numbers.sort_by(|a, b| a.queue.cmp(&b.queue));
        let mut other =
            QueueNumber { queue: OTHER.into(), jobs: [0; STATES.len()], dead: 0, oldest_pending: Duration::ZERO };
        let rest = numbers.split_off(MAX_QUEUES);
        // A queue that has this name itself is among them, so that no name stands twice.
        let named = numbers.iter().position(|number| *number.queue == *OTHER).map(|at| numbers.remove(at));
        for number in rest.into_iter().chain(named) {
            other.jobs.iter_mut().zip(number.jobs).for_each(|(sum, n)| *sum += n);
            other.dead += number.dead;
            other.oldest_pending = other.oldest_pending.max(number.oldest_pending);
        }
        numbers.push(other);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_bound_is_summed_up() {
        let number = |n: u64| QueueNumber {
            queue: if n == 3 { OTHER.into() } else { format!("a{n:05}").into() },
            jobs: [1, 0, 0, 0, 2],
            dead: 1,
            oldest_pending: Duration::from_secs(n),
        };
        let few: Vec<_> = (0..1000).map(number).collect();
        assert_eq!(bounded(few.clone()), few);
        let many = bounded((0..1500).map(number).collect());
        assert_eq!(many.len(), 1001);
        let last = &many[1000];
        assert_eq!((&*last.queue, last.jobs, last.dead), (OTHER, [500, 0, 0, 0, 1000], 500));
        assert_eq!(last.oldest_pending, Duration::from_secs(1499));
        assert_eq!(many.iter().filter(|number| *number.queue == *OTHER).count(), 1);
    }
}
