//! [`EventStats`]: numbers over the events of a window: rates, percentiles, failures, and what each worker did.
//!
//! Invariant: pure; memory grows with the number of kinds, error types and workers, not with that of events. Percentiles
//! are right within 2 %; the longest is exact.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use super::{Event, EventType};
use crate::Timestamp;

/// How durations spread. In JSON: seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// How many were counted.
    pub count: u64,
    /// Half of them were at most so long.
    pub p50: f64,
    /// 95 of 100 were at most so long.
    pub p95: f64,
    /// 99 of 100 were at most so long.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// Durations counted by their order of magnitude.
#[derive(Debug, Clone, Default)]
struct Durations {
    buckets: BTreeMap<i32, u64>,
    count: u64,
    max: Duration,
}

/// Below this all count as equal.
const SHORTEST: f64 = 1e-6;
/// The width of a bucket.
const STEP: f64 = 1.02;

impl Durations {
    fn add(&mut self, duration: Duration) {
        #[expect(clippy::cast_possible_truncation, reason = "a few thousand buckets reach over all durations")]
        let bucket = (duration.as_secs_f64().max(SHORTEST) / SHORTEST).log(STEP).ceil() as i32;
        *self.buckets.entry(bucket).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(duration);
    }

    fn at(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let rank = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return micros((SHORTEST * STEP.powi(*bucket)).min(self.max.as_secs_f64()));
            }
        }
        0.0
    }

    fn spread(&self) -> Spread {
        let max = micros(self.max.as_secs_f64());
        Spread { count: self.count, p50: self.at(0.5), p95: self.at(0.95), p99: self.at(0.99), max }
    }
}

fn micros(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

/// What happened to the jobs of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct KindStats {
    /// The kind; empty for jobs that cannot be read.
    pub kind: String,
    /// Attempts that began.
    pub started: u64,
    /// Jobs that ended well.
    pub completed: u64,
    /// Jobs that failed for good.
    pub failed: u64,
    /// Attempts that failed and are followed by another.
    pub retried: u64,
    /// How long jobs waited for a worker.
    pub wait: Spread,
    /// How long attempts ran, however they ended.
    pub run: Spread,
}

/// How often one kind of job failed with one type of error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailureStats {
    /// The kind of job.
    pub kind: String,
    /// The type of error.
    pub error_type: String,
    /// Attempts that failed with it.
    pub count: u64,
    /// What it said the last time.
    pub last_message: String,
    /// When it happened last.
    pub last_at: Timestamp,
}

/// What one worker did in the window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerActivity {
    /// The worker.
    pub worker_id: String,
    /// Its host, if it started in the window.
    pub host: Option<String>,
    /// Its process, if it started in the window.
    pub pid: Option<u32>,
    /// The type of its newest event about itself: how it stood last.
    pub last_state: Option<EventType>,
    /// When it started, if that was in the window.
    pub started_at: Option<Timestamp>,
    /// When it ended, if that was in the window.
    pub stopped_at: Option<Timestamp>,
    /// The time of its newest event.
    pub last_event_at: Timestamp,
    /// Attempts that it began.
    pub started: u64,
    /// Jobs that it completed.
    pub completed: u64,
    /// Jobs that failed for good with it.
    pub failed: u64,
    /// Attempts that failed with it and are followed by another.
    pub retried: u64,
    /// The time that its jobs ran, together, in seconds.
    pub busy: f64,
}

/// Numbers over a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventStats {
    /// Where the window begins.
    pub since: Timestamp,
    /// Where it ends.
    pub until: Timestamp,
    /// Events in it.
    pub events: u64,
    /// How many of each type.
    pub types: BTreeMap<String, u64>,
    /// How many of each type in a second.
    pub rates: BTreeMap<String, f64>,
    /// How long jobs waited for a worker.
    pub wait: Spread,
    /// How long attempts ran.
    pub run: Spread,
    /// By kind, the most started first.
    pub kinds: Vec<KindStats>,
    /// By kind and type of error, the most frequent first.
    pub failures: Vec<FailureStats>,
    /// By worker, the most recent first.
    pub workers: Vec<WorkerActivity>,
}

#[derive(Debug, Default)]
struct Kind {
    stats: KindStats,
    wait: Durations,
    run: Durations,
}

/// Counts events one by one.
#[derive(Debug, Default)]
pub struct EventStatsBuilder {
    events: u64,
    types: HashMap<EventType, u64>,
    wait: Durations,
    run: Durations,
    kinds: BTreeMap<Arc<str>, Kind>,
    failures: BTreeMap<(Arc<str>, Box<str>), FailureStats>,
    workers: BTreeMap<Arc<str>, WorkerActivity>,
}

impl EventStatsBuilder {
    /// Counts one event.
    pub fn add(&mut self, event: &Event) {
        self.events += 1;
        *self.types.entry(event.event_type.clone()).or_default() += 1;
        let is_attempt = matches!(
            event.event_type,
            EventType::Started
                | EventType::Completed
                | EventType::Failed
                | EventType::RetryScheduled
                | EventType::Snoozed
                | EventType::Cancelled
        );
        if is_attempt && event.job_id.is_some() {
            self.add_attempt(event);
        }
        if let Some(worker) = &event.worker_id {
            self.add_worker(worker, event);
        }
    }

    fn add_attempt(&mut self, event: &Event) {
        let name = event.kind.clone().unwrap_or_default();
        let kind = self.kinds.entry(Arc::clone(&name)).or_default();
        match event.event_type {
            EventType::Started => kind.stats.started += 1,
            EventType::Completed => kind.stats.completed += 1,
            EventType::Failed => kind.stats.failed += 1,
            EventType::RetryScheduled => kind.stats.retried += 1,
            _ => {}
        }
        if let Some(wait) = event.details.wait.filter(|_| event.event_type == EventType::Started) {
            self.wait.add(wait);
            kind.wait.add(wait);
        }
        if let Some(run) = event.details.duration {
            self.run.add(run);
            kind.run.add(run);
        }
        if matches!(event.event_type, EventType::Failed | EventType::RetryScheduled) {
            let error = event.details.error_type.clone().unwrap_or_default();
            let failure =
                self.failures.entry((Arc::clone(&name), error)).or_insert_with_key(|(kind, error)| FailureStats {
                    kind: kind.as_ref().to_owned(),
                    error_type: error.as_ref().to_owned(),
                    count: 0,
                    last_message: String::new(),
                    last_at: event.time,
                });
            failure.count += 1;
            if event.time >= failure.last_at {
                failure.last_at = event.time;
                failure.last_message = event.details.message.as_deref().unwrap_or_default().to_owned();
            }
        }
    }

    fn add_worker(&mut self, id: &Arc<str>, event: &Event) {
        let worker = self.workers.entry(Arc::clone(id)).or_insert_with(|| WorkerActivity {
            worker_id: id.as_ref().to_owned(),
            host: None,
            pid: None,
            last_state: None,
            started_at: None,
            stopped_at: None,
            last_event_at: event.time,
            started: 0,
            completed: 0,
            failed: 0,
            retried: 0,
            busy: 0.0,
        });
        worker.last_event_at = worker.last_event_at.max(event.time);
        match event.event_type {
            EventType::Started => worker.started += 1,
            EventType::Completed => worker.completed += 1,
            EventType::Failed => worker.failed += 1,
            EventType::RetryScheduled => worker.retried += 1,
            EventType::WorkerStarted => {
                worker.started_at = Some(event.time);
                worker.host = event.details.host.as_deref().map(str::to_owned);
                worker.pid = event.details.pid;
            }
            EventType::WorkerStopped => worker.stopped_at = Some(event.time),
            _ => {}
        }
        if event.event_type.category() == super::EventCategory::Worker {
            worker.last_state = Some(event.event_type.clone());
        } else if let Some(run) = event.details.duration {
            worker.busy = micros(worker.busy + run.as_secs_f64());
        }
    }

    /// The numbers of the window from `since` to `until`.
    #[must_use]
    pub fn finish(self, since: Timestamp, until: Timestamp) -> EventStats {
        let window = until.since(since).as_secs_f64().max(0.001);
        let types: BTreeMap<String, u64> =
            self.types.into_iter().map(|(name, count)| (name.as_str().to_owned(), count)).collect();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rates = types.iter().map(|(name, count)| (name.clone(), round(*count as f64 / window))).collect();
        let mut kinds: Vec<KindStats> = self
            .kinds
            .into_iter()
            .map(|(name, kind)| KindStats {
                kind: name.as_ref().to_owned(),
                wait: kind.wait.spread(),
                run: kind.run.spread(),
                ..kind.stats
            })
            .collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.started));
        let mut failures: Vec<FailureStats> = self.failures.into_values().collect();
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.count));
        let mut workers: Vec<WorkerActivity> = self.workers.into_values().collect();
        workers.sort_by_key(|worker| std::cmp::Reverse(worker.last_event_at));
        EventStats {
            since,
            until,
            events: self.events,
            types,
            rates,
            wait: self.wait.spread(),
            run: self.run.spread(),
            kinds,
            failures,
            workers,
        }
    }
}

/// To four digits that count.
fn round(rate: f64) -> f64 {
    if rate == 0.0 {
        return 0.0;
    }
    let scale = 10f64.powf(3.0 - rate.log10().floor());
    (rate * scale).round() / scale
}
