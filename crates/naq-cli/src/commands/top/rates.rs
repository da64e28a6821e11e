//! [`Rates`]: how many jobs enter, end and fail in a second, from the events that arrive.
//!
//! Invariant: counts by arrival, so that clocks that differ do not matter; whoever owns it says when a second has passed.
//! Memory grows with the queues in which something happened in the last [`WINDOW`] seconds, not with events.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::AddAssign,
};

use naq_models::{Event, EventType, QueueName};

/// Rates are means over so many seconds.
const WINDOW: usize = 10;

/// Jobs that entered, ended well and failed for good: in a window, or in a second of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Flow {
    pub(super) enqueued: f64,
    pub(super) completed: f64,
    pub(super) failed: f64,
}

impl AddAssign for Flow {
    fn add_assign(&mut self, other: Self) {
        self.enqueued += other.enqueued;
        self.completed += other.completed;
        self.failed += other.failed;
    }
}

impl Flow {
    /// What one event counts for; `None` if for nothing.
    fn of(event_type: &EventType) -> Option<Self> {
        let mut flow = Self::default();
        match event_type {
            EventType::Enqueued | EventType::Scheduled | EventType::Waiting => flow.enqueued = 1.0,
            EventType::Completed => flow.completed = 1.0,
            EventType::Failed => flow.failed = 1.0,
            _ => return None,
        }
        Some(flow)
    }

    /// The types of events that count for something.
    pub(super) fn types() -> impl Iterator<Item = &'static EventType> {
        EventType::ALL.iter().filter(|event_type| Self::of(event_type).is_some())
    }

    /// The flow of events that happen so often, by the names of their types.
    pub(super) fn of_rates(rates: &BTreeMap<String, f64>) -> Self {
        let mut sum = Self::default();
        for (name, rate) in rates {
            let Self { enqueued, completed, failed } = Self::of(&EventType::named(name)).unwrap_or_default();
            sum += Self { enqueued: enqueued * rate, completed: completed * rate, failed: failed * rate };
        }
        sum
    }

    fn per_second(self, seconds: f64) -> Self {
        Self { enqueued: self.enqueued / seconds, completed: self.completed / seconds, failed: self.failed / seconds }
    }
}

/// Flows of all queues and of each.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// The second that goes on first, then whole ones.
    seconds: VecDeque<HashMap<QueueName, Flow>>,
    all: Option<Flow>,
    by_queue: HashMap<QueueName, Flow>,
}

impl Rates {
    /// Rates that somebody else has counted.
    pub(super) fn known(all: Flow) -> Self {
        Self { all: Some(all), ..Self::default() }
    }

    /// In a second; `None` before the first one is over.
    pub(super) fn all(&self) -> Option<Flow> {
        self.all
    }

    /// Of one queue.
    pub(super) fn of(&self, queue: &QueueName) -> Option<Flow> {
        (!self.seconds.is_empty()).then(|| self.by_queue.get(queue).copied().unwrap_or_default())
    }

    /// Counts an event.
    pub(super) fn add(&mut self, event: &Event) {
        if let (Some(now), Some(queue), Some(flow)) =
            (self.seconds.front_mut(), &event.queue, Flow::of(&event.event_type))
        {
            *now.entry(queue.clone()).or_default() += flow;
        }
    }

    /// A second has passed.
    pub(super) fn second(&mut self) {
        self.seconds.push_front(HashMap::new());
        self.seconds.truncate(WINDOW + 1);
        let whole = self.seconds.len() - 1;
        if whole == 0 {
            return;
        }
        let mut sums: HashMap<QueueName, Flow> = HashMap::new();
        for (queue, flow) in self.seconds.iter().skip(1).flatten() {
            *sums.entry(queue.clone()).or_default() += *flow;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most ten")]
        let whole = whole as f64;
        self.by_queue = sums.into_iter().map(|(queue, flow)| (queue, flow.per_second(whole))).collect();
        let mut all = Flow::default();
        self.by_queue.values().for_each(|flow| all += *flow);
        self.all = Some(all);
    }
}
