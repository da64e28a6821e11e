//! [`EventHook`]: the one place where everything in this process tells what happened.
//!
//! Invariant: telling never waits, and costs one load where nobody listens: events are made only for somebody. Several
//! may listen (the log, processors, metrics); each looks at the same events.

use std::{
    fmt,
    sync::{
        Arc, LazyLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use naq_models::{
    Timestamp,
    event::{Event, EventId, EventOrigin, EventType},
};

use super::Measurement;
use crate::{host_clock::host_time, storage::VirtualClock};

/// Of many events, so many exist at a time: they stay in the processor's cache between who makes and who takes them.
const AT_ONCE: usize = 32;

/// Somebody who listens.
pub trait EventSink: Send + Sync + 'static {
    /// Takes events that have just happened. Called on the threads that jobs run on: must neither block nor panic.
    fn record(&self, events: &[Event]);

    /// Takes a number that no event carries, under the same terms. Does nothing unless it is implemented.
    fn measure(&self, _measurement: &Measurement) {}
}

/// Where events are told. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct EventHook {
    sinks: Option<Arc<Sinks>>,
}

#[derive(Default)]
struct Sinks {
    listening: AtomicBool,
    list: RwLock<Vec<Arc<dyn EventSink>>>,
    clock: Option<VirtualClock>,
}

impl EventHook {
    /// A hook that nobody can listen to.
    #[must_use]
    pub fn silent() -> Self {
        Self::default()
    }

    /// A hook to which nobody listens yet. Events are told at the time of `clock`, if there is one.
    #[must_use]
    pub fn new(clock: Option<VirtualClock>) -> Self {
        Self { sinks: Some(Arc::new(Sinks { clock, ..Sinks::default() })) }
    }

    /// Lets somebody listen from now on. Nothing happens on a silent hook.
    pub fn add(&self, sink: Arc<dyn EventSink>) {
        if let Some(sinks) = &self.sinks {
            sinks.list.write().unwrap_or_else(PoisonError::into_inner).push(sink);
            sinks.listening.store(true, Ordering::Release);
        }
    }

    fn listening(&self) -> Option<&Sinks> {
        self.sinks.as_deref().filter(|sinks| sinks.listening.load(Ordering::Acquire))
    }

    /// Whether somebody listens.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.listening().is_some()
    }

    /// Tells one event, made only if somebody listens, of the time of this host.
    pub fn emit(&self, event_type: EventType, fill: impl FnOnce(Event) -> Event) {
        if let Some(sinks) = self.listening() {
            let event = fill(Event::new(next_id(sinks.now()), event_type));
            sinks.tell(&[event]);
        }
    }

    /// The same at a time that is known better.
    pub fn emit_at(&self, time: impl FnOnce() -> Timestamp, event_type: EventType, fill: impl FnOnce(Event) -> Event) {
        if let Some(sinks) = self.listening() {
            let event = fill(Event::new(next_id(time()), event_type));
            sinks.tell(&[event]);
        }
    }

    /// Tells many events at once, made only if somebody listens.
    pub fn emit_all<I: IntoIterator<Item = Event>>(&self, make: impl FnOnce() -> I) {
        let Some(sinks) = self.listening() else { return };
        let mut events = make().into_iter();
        let mut some = Vec::with_capacity(AT_ONCE.min(events.size_hint().0));
        loop {
            some.extend(events.by_ref().take(AT_ONCE));
            if some.is_empty() {
                return;
            }
            sinks.tell(&some);
            some.clear();
        }
    }

    /// Tells a number, made only if somebody listens.
    pub fn measure(&self, make: impl FnOnce() -> Measurement) {
        if let Some(sinks) = self.listening() {
            let measurement = make();
            for sink in &*sinks.list.read().unwrap_or_else(PoisonError::into_inner) {
                sink.measure(&measurement);
            }
        }
    }

    pub(crate) fn tell(&self, events: &[Event]) {
        if let Some(sinks) = self.listening().filter(|_| !events.is_empty()) {
            sinks.tell(events);
        }
    }

    /// An event for [`emit_all`](Self::emit_all).
    #[must_use]
    pub fn event(&self, time: Timestamp, event_type: EventType) -> Event {
        Event::new(next_id(time), event_type)
    }
}

impl Sinks {
    fn now(&self) -> Timestamp {
        self.clock.as_ref().map_or_else(host_time, VirtualClock::now)
    }

    fn tell(&self, events: &[Event]) {
        for sink in &*self.list.read().unwrap_or_else(PoisonError::into_inner) {
            sink.record(events);
        }
    }
}

impl fmt::Debug for EventHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventHook").field("is_heard", &self.is_heard()).finish_non_exhaustive()
    }
}

/// An id of this process.
pub(super) fn next_id(time: Timestamp) -> EventId {
    static ORIGIN: LazyLock<EventOrigin> = LazyLock::new(|| EventOrigin::new(rand::random()));
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    EventId::new(time, *ORIGIN, NUMBER.fetch_add(1, Ordering::Relaxed))
}
