//! [`Inbox`]: the bounded channel between async callers and a thread that owns a connection.
//!
//! Invariant: at most [`CAPACITY`] items wait, so a slow disk slows its callers down; the thread takes everything that
//! waits at once (that is what makes group commit); after closing, what was accepted is still done and nothing new is.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// So many items wait at most.
pub(super) const CAPACITY: usize = 1024;

/// See the module.
pub(super) struct Inbox<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    permits: Semaphore,
}

struct State<T> {
    items: VecDeque<(usize, T)>,
    closed: bool,
    watchers: usize,
    /// Something may have changed outside since the last look.
    rung: bool,
}

/// What [`Inbox::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Items were taken.
    Items,
    /// Nothing waits, but somebody watches for changes from outside, and there may be one.
    Look,
    /// Closed, and everything that had been accepted was taken.
    Closed,
}

/// The inbox takes nothing any more.
pub(super) struct InboxClosed;

impl<T> Inbox<T> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State { items: VecDeque::new(), closed: false, watchers: 0, rung: false }),
            ready: Condvar::new(),
            permits: Semaphore::new(CAPACITY),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item in, and waits for room. `weight` is about how many rows it touches.
    ///
    /// # Cancel safety
    /// The item is in or not; which, a caller that drops the future does not learn.
    pub(super) async fn put(&self, weight: usize, item: T) -> Result<(), InboxClosed> {
        self.permits.acquire().await.map_err(|_| InboxClosed)?.forget();
        let mut state = self.state();
        if state.closed {
            return Err(InboxClosed);
        }
        state.items.push_back((weight, item));
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for items and takes as many as their weights allow, at least one. While there are watchers, returns
    /// [`Taken::Look`] when the bell was [rung](Self::ring), and with `look_every` after that long without items.
    pub(super) fn take(&self, max_weight: usize, look_every: Option<Duration>, into: &mut Vec<T>) -> Taken {
        let started = Instant::now();
        let mut state = self.state();
        while state.items.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            if state.rung && state.watchers > 0 {
                state.rung = false;
                return Taken::Look;
            }
            match look_every.filter(|_| state.watchers > 0) {
                None => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(every) => {
                    let left = every.saturating_sub(started.elapsed());
                    if left.is_zero() {
                        return Taken::Look;
                    }
                    state = self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        let mut weight = 0;
        while let Some((next, _)) = state.items.front() {
            if !into.is_empty() && weight + next > max_weight {
                break;
            }
            weight += next;
            into.extend(state.items.pop_front().map(|(_, item)| item));
        }
        drop(state);
        self.permits.add_permits(into.len());
        Taken::Items
    }

    /// Makes [`take`](Self::take) look outside, now or when somebody watches.
    pub(super) fn ring(&self) {
        let mut state = self.state();
        state.rung = true;
        if state.watchers > 0 {
            self.ready.notify_all();
        }
    }

    /// Refuses new items from now on.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.permits.close();
        self.ready.notify_all();
    }

    /// Drops what waits; for a thread that ends out of order.
    pub(super) fn clear(&self) {
        self.state().items.clear();
    }

    /// Makes [`take`](Self::take) look outside while the guard lives.
    pub(super) fn watch(&self) -> Watching<'_, T> {
        self.state().watchers += 1;
        self.ready.notify_all();
        Watching(self)
    }
}

/// See [`Inbox::watch`].
pub(super) struct Watching<'a, T>(&'a Inbox<T>);

impl<T> Drop for Watching<'_, T> {
    fn drop(&mut self) {
        self.0.state().watchers -= 1;
    }
}
