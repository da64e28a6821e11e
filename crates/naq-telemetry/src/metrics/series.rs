//! The numbers of one (queue, kind): [`Pairs`], [`Pair`], [`Histogram`].
//!
//! Invariant: counting is a few atomic additions, and allocates only when a (queue, kind) is seen for the first time. There
//! are never more than [`MAX_PAIRS`] of them, however many kinds producers make up: what comes after is counted together.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Different (queue, kind) that are counted apart.
pub(super) const MAX_PAIRS: usize = 1000;
/// The queue and the kind of those after them.
pub(super) const OTHER: &str = "other";
/// A longer kind, in bytes, is counted among the others.
const MAX_KIND: usize = 200;

/// Upper bounds of the time that a job waits and runs: from what an idle system needs to hours, in seconds.
pub(super) const JOB_BOUNDS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 1800.0, 7200.0];
/// The same of round trips and of how late the scheduler is.
pub(super) const STORE_BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Completed,
    Failed,
    Cancelled,
    Retried,
    Snoozed,
}

impl Ended {
    pub(super) const ALL: [Self; 5] = [Self::Completed, Self::Failed, Self::Cancelled, Self::Retried, Self::Snoozed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Retried => "retried",
            Self::Snoozed => "snoozed",
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by size.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is longer.
    counts: Box<[Count]>,
    micros: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = std::iter::repeat_with(Count::default).take(bounds.len() + 1).collect();
        Self { bounds, counts, micros: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.counts[self.bounds.partition_point(|bound| *bound < seconds)].add(1);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Reads everything: the sum in seconds, how many, and how many by bound (not those below it), the last without.
    pub(super) fn read(&self, buckets: &mut Vec<(f64, u64)>) -> (f64, u64) {
        buckets.clear();
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        buckets.extend(bounds.zip(self.counts.iter().map(Count::get)));
        #[expect(clippy::cast_precision_loss, reason = "285 years fit exactly")]
        let sum = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        // Not a number of its own, so that it agrees with the buckets whatever is counted at this moment.
        (sum, buckets.iter().map(|(_, n)| n).sum())
    }
}

/// The numbers of the jobs of one queue and kind.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) queue: Box<str>,
    pub(super) kind: Box<str>,
    pub(super) enqueued: Count,
    pub(super) started: Count,
    pub(super) ended: [Count; Ended::ALL.len()],
    pub(super) wait: Histogram,
    pub(super) run: Histogram,
}

impl Pair {
    fn new(queue: &str, kind: &str) -> Self {
        Self {
            queue: queue.into(),
            kind: kind.into(),
            enqueued: Count::default(),
            started: Count::default(),
            ended: Default::default(),
            wait: Histogram::new(JOB_BOUNDS),
            run: Histogram::new(JOB_BOUNDS),
        }
    }

    /// Whether jobs of it have run in this process, or were ended by it.
    pub(super) fn has_run(&self) -> bool {
        self.started.get() > 0 || self.ended.iter().any(|count| count.get() > 0)
    }

    fn is(&self, queue: &str, kind: &str) -> bool {
        *self.queue == *queue && *self.kind == *kind
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Pairs {
    known: RwLock<Known>,
    other: Arc<Pair>,
}

#[derive(Debug, Default)]
struct Known {
    by_queue: HashMap<Box<str>, HashMap<Box<str>, Arc<Pair>>>,
    count: usize,
}

impl Known {
    fn find(&self, queue: &str, kind: &str) -> Option<&Arc<Pair>> {
        self.by_queue.get(queue)?.get(kind)
    }
}

impl Default for Pairs {
    fn default() -> Self {
        Self { known: RwLock::default(), other: Arc::new(Pair::new(OTHER, OTHER)) }
    }
}

impl Pairs {
    /// The numbers of a queue and kind. `last` is what was asked for before by the same caller: events of one batch are
    /// most often of one kind.
    pub(super) fn of<'a>(&self, queue: &str, kind: &str, last: &'a mut Option<Arc<Pair>>) -> &'a Pair {
        if !last.as_ref().is_some_and(|last| last.is(queue, kind)) {
            *last = Some(self.find(queue, kind));
        }
        last.as_ref().expect("it was just set")
    }

    fn find(&self, queue: &str, kind: &str) -> Arc<Pair> {
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(pair) = known.find(queue, kind) {
                return Arc::clone(pair);
            }
            if known.count >= MAX_PAIRS || kind.len() > MAX_KIND {
                return Arc::clone(&self.other);
            }
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(pair) = known.find(queue, kind) {
            return Arc::clone(pair);
        }
        if known.count >= MAX_PAIRS {
            return Arc::clone(&self.other);
        }
        let other = queue == OTHER && kind == OTHER;
        let pair = if other { Arc::clone(&self.other) } else { Arc::new(Pair::new(queue, kind)) };
        known.count += 1;
        known.by_queue.entry(queue.into()).or_default().insert(kind.into(), Arc::clone(&pair));
        pair
    }

    /// Everything that was counted.
    pub(super) fn all(&self) -> Vec<Arc<Pair>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = known.by_queue.values().flat_map(HashMap::values).cloned().collect();
        let other = &self.other;
        if (other.enqueued.get() > 0 || other.has_run()) && !all.iter().any(|pair| Arc::ptr_eq(pair, other)) {
            all.push(Arc::clone(other));
        }
        all
    }
}
