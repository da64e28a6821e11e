//! [`EventQueue`]: the bounded buffer between those who tell events and one who takes them.
//!
//! Invariant: putting in never waits for the taker; over the bound, events are dropped and counted, also those that were
//! taken and not yet reported done. One taker. What is put in takes the taker's form at once ([`Buffer`]), so that no
//! event is allocated by one thread, and read and freed by another.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use naq_models::event::{Event, EventBatch, EventBatches};
use tokio::{sync::Notify, time::Instant};

/// Others who put events in get their turn after so many.
const TURN: usize = 32;

/// Events that wait.
pub(super) trait Buffer: Default + Send {
    /// What the taker gets.
    type Taken;
    /// Adds an event.
    fn push(&mut self, event: &Event);
    /// How many events wait.
    fn len(&self) -> usize;
    /// Takes at most about `most` events.
    fn take(&mut self, most: usize) -> Self::Taken;
}

/// For the store.
impl Buffer for EventBatches {
    type Taken = Vec<EventBatch>;

    fn push(&mut self, event: &Event) {
        self.push(event);
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn take(&mut self, most: usize) -> Vec<EventBatch> {
        let (mut taken, mut count) = (Vec::new(), 0);
        while count < most
            && let Some(batch) = self.pop()
        {
            count += batch.count;
            taken.push(batch);
        }
        taken
    }
}

/// For who looks at events themselves.
impl Buffer for Vec<Event> {
    type Taken = Self;

    fn push(&mut self, event: &Event) {
        self.push(event.clone());
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn take(&mut self, most: usize) -> Self {
        let later = self.split_off(most.min(self.len()));
        std::mem::replace(self, later)
    }
}

/// See the module.
pub(super) struct EventQueue<B> {
    state: Mutex<State<B>>,
    /// Events that may wait or be worked on.
    max: usize,
    /// So many wake the taker.
    enough: usize,
    wake: Notify,
    dropped: AtomicU64,
    done: Notify,
}

#[derive(Default)]
struct State<B> {
    waiting: B,
    /// Events that were taken and are not done.
    taken: usize,
    oldest: Option<Instant>,
    closed: bool,
}

/// What the taker is to do next.
pub(super) enum Next<T> {
    /// Work on these; then call [`EventQueue::finished`].
    Events(T),
    /// Nothing waits until then.
    Wait(Option<Instant>),
    /// Closed, and nothing waits.
    End,
}

impl<B: Buffer> EventQueue<B> {
    pub(super) fn new(max: usize, enough: usize) -> Self {
        let (wake, done) = (Notify::new(), Notify::new());
        Self { state: Mutex::default(), max, enough, wake, dropped: AtomicU64::new(0), done }
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put<'a>(&self, events: impl IntoIterator<Item = &'a Event>) {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let wake = {
                let mut state = self.state();
                let before = state.waiting.len();
                let room = if state.closed { 0 } else { self.max.saturating_sub(before + state.taken) };
                if room == 0 {
                    drop(state);
                    self.drop_events(events.count());
                    return;
                }
                events.by_ref().take(room.min(TURN)).for_each(|event| state.waiting.push(event));
                if before == 0 {
                    state.oldest = Some(Instant::now());
                }
                before == 0 || before < self.enough && state.waiting.len() >= self.enough
            };
            if wake {
                self.wake.notify_one();
            }
        }
    }

    pub(super) fn drop_events(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What waits, if it is enough, or has waited for `patience`, or the queue is closed; at most about `most` events.
    pub(super) fn next(&self, patience: std::time::Duration, most: usize) -> Next<B::Taken> {
        let mut state = self.state();
        let waiting = state.waiting.len();
        if waiting == 0 {
            return if state.closed { Next::End } else { Next::Wait(None) };
        }
        let due = state.oldest.map(|oldest| oldest + patience);
        let ripe = state.closed || waiting >= self.enough || due.is_some_and(|due| due <= Instant::now());
        if !ripe {
            return Next::Wait(due);
        }
        let taken = state.waiting.take(most);
        let left = state.waiting.len();
        state.taken += waiting - left;
        // What is left has waited no longer than this.
        state.oldest = (left > 0).then(Instant::now);
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
        let left = state.waiting.len() + state.taken;
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
                if state.waiting.len() + state.taken == 0 {
                    return;
                }
            }
            done.await;
        }
    }
}
