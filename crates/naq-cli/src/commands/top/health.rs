//! Whether all is well, in one line.
//!
//! Invariant: pure; the worst comes first, and what is not known is not called well.

use std::time::Duration;

use super::{
    model::{Model, Snapshot},
    text::{age, rate},
};

/// A store that has not answered for so many seconds is said to be silent.
const SILENT_AFTER: u32 = 5;
/// A job that has been ready for so long waits too long.
const LONG_WAIT: Duration = Duration::from_secs(60);

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    Good,
    Doubtful,
    Bad,
}

/// How things stand, and why.
pub(super) fn health(model: &Model, interval: Duration) -> (Health, String) {
    if let Some(why) = &model.trouble {
        let since = if model.snapshot.is_some() { format!(" for {}s", model.unread) } else { String::new() };
        return (Health::Bad, format!("the store is away{since}: {why}"));
    }
    let Some(snapshot) = &model.snapshot else {
        return (Health::Doubtful, "reading the store …".to_owned());
    };
    let mut found = Vec::new();
    if u64::from(model.unread) > u64::from(SILENT_AFTER) + interval.as_secs() {
        found.push((Health::Bad, format!("the store has not answered for {}s", model.unread)));
    }
    workers(snapshot, &mut found);
    if let Some(flow) = model.rates.all().filter(|flow| flow.failed > 0.0) {
        found.push((Health::Doubtful, format!("{} jobs/s fail", rate(flow.failed))));
    }
    queues(snapshot, &mut found);
    if let Some(why) = &model.not_followed {
        found.push((Health::Doubtful, format!("no events: {why}")));
    }
    found.sort_by_key(|(health, _)| std::cmp::Reverse(*health));
    let worst = found.first().map_or(Health::Good, |(health, _)| *health);
    let texts: Vec<String> = found.into_iter().map(|(_, text)| text).collect();
    (worst, if texts.is_empty() { "all is well".to_owned() } else { texts.join("; ") })
}

fn workers(snapshot: &Snapshot, found: &mut Vec<(Health, String)>) {
    let waits = snapshot.queues.iter().any(|queue| queue.pending + queue.retry + queue.scheduled + queue.waiting > 0);
    if snapshot.workers.is_empty() {
        let health = if waits { Health::Bad } else { Health::Doubtful };
        found.push((health, "no worker is alive, nothing runs".to_owned()));
    } else if snapshot.leader.is_none() {
        found.push((Health::Doubtful, "no scheduler leads, nothing becomes due".to_owned()));
    }
}

fn queues(snapshot: &Snapshot, found: &mut Vec<(Health, String)>) {
    let waits = snapshot.queues.iter().filter(|queue| !queue.paused);
    let oldest = waits.filter_map(|queue| Some((queue.oldest_pending?, queue))).min_by_key(|(time, _)| *time);
    if let Some((time, queue)) = oldest
        && snapshot.now.since(time) >= LONG_WAIT
    {
        let text = format!("a job of {} has waited for {}", queue.queue, age(snapshot.now.since(time)));
        found.push((Health::Doubtful, text));
    }
    let paused: Vec<&str> = snapshot.queues.iter().filter(|q| q.paused).map(|q| q.queue.as_str()).collect();
    if !paused.is_empty() {
        found.push((Health::Doubtful, format!("paused: {}", paused.join(", "))));
    }
}
