//! [`EventQueue`]: the bounded buffer between those who tell events and one who takes them.
//!
//! Invariant: putting in never waits; over the bound, events are dropped and counted, also those that were taken and not
//! yet reported done. One taker.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use naq_models::event::Event;
use tokio::{sync::Notify, time::Instant};

/// See the module.
pub(super) struct EventQueue {
    state: Mutex<State>,
    /// Events that may wait or be worked on.
    max: usize,
    /// So many wake the taker.
    enough: usize,
    wake: Notify,
    dropped: AtomicU64,
    done: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<[Event]>>,
    /// Events in `waiting`.
    waiting_events: usize,
    /// Events that were taken and are not done.
    taken: usize,
    oldest: Option<Instant>,
    closed: bool,
}

/// What the taker is to do next.
pub(super) enum Next {
    /// Work on these; then call [`EventQueue::finished`].
    Events(Vec<Arc<[Event]>>),
    /// Nothing waits until then.
    Wait(Option<Instant>),
    /// Closed, and nothing waits.
    End,
}

impl EventQueue {
    pub(super) fn new(max: usize, enough: usize) -> Self {
        let (wake, done) = (Notify::new(), Notify::new());
        Self { state: Mutex::default(), max, enough, wake, dropped: AtomicU64::new(0), done }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, events: &Arc<[Event]>) {
        let wake = {
            let mut state = self.state();
            if state.closed || state.waiting_events + state.taken + events.len() > self.max {
                drop(state);
                self.drop_events(events.len());
                return;
            }
            let before = state.waiting_events;
            if before == 0 {
                state.oldest = Some(Instant::now());
            }
            state.waiting_events += events.len();
            state.waiting.push_back(Arc::clone(events));
            before == 0 || before < self.enough && state.waiting_events >= self.enough
        };
        if wake {
            self.wake.notify_one();
        }
    }

    pub(super) fn drop_events(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What waits, if it is enough, or has waited for `patience`, or the queue is closed; at most about `most` events.
    pub(super) fn next(&self, patience: std::time::Duration, most: usize) -> Next {
        let mut state = self.state();
        let due = state.oldest.map(|oldest| oldest + patience);
        if state.waiting.is_empty() {
            return if state.closed { Next::End } else { Next::Wait(None) };
        }
        let ripe = state.closed || state.waiting_events >= self.enough || due.is_some_and(|due| due <= Instant::now());
        if !ripe {
            return Next::Wait(due);
        }
        let mut taken = Vec::new();
        let mut count = 0;
        while count < most
            && let Some(events) = state.waiting.pop_front()
        {
            count += events.len();
            taken.push(events);
        }
        state.waiting_events -= count;
        state.taken += count;
        // What is left has waited no longer than this.
        state.oldest = (!state.waiting.is_empty()).then(Instant::now);
        Next::Events(taken)
    }

    /// The taker is done with what it took last.
    pub(super) fn finished(&self) {
        self.state().taken = 0;
        self.done.notify_waiters();
    }

    /// Waits for a change that may make [`next`](Self::next) say something else.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes no more events; what waits is taken at once.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Drops what is left; how much that is.
    pub(super) fn clear(&self) -> usize {
        let mut state = self.state();
        let left = state.waiting_events + state.taken;
        *state = State { closed: true, ..State::default() };
        left
    }

    /// Waits until nothing waits and nothing is worked on.
    pub(super) async fn empty(&self) {
        loop {
            let mut done = std::pin::pin!(self.done.notified());
            done.as_mut().enable();
            {
                let state = self.state();
                if state.waiting_events + state.taken == 0 {
                    return;
                }
            }
            done.await;
        }
    }
}
