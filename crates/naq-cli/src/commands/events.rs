//! `naq events …`: what happened, live and afterwards.

use std::{fmt::Write as _, time::Duration};

use naq_models::{
    Event, EventFilter, EventType, JobId, duration,
    event::{EventStats, Spread, WorkerActivity},
};
use naq_services::EventService;

use crate::{
    args::{EventsCommand, StreamArgs, WindowArgs},
    error::CliError,
    output::{Output, line, table},
    session::Session,
};

/// Rows of a table of failures or kinds.
const ROWS: usize = 20;

pub(crate) async fn run(session: &Session, command: EventsCommand) -> Result<(), CliError> {
    // Opens the store, and says which it is.
    session.jobs().await?;
    let (events, out) = (session.services().events().await?, session.output());
    match command {
        EventsCommand::Stream(args) => stream(&events, out, args).await,
        EventsCommand::History { job } => history(&events, out, &job).await,
        EventsCommand::Stats(args) => {
            let stats = stats(session, &events, args).await?;
            out.one(&stats, || describe(&stats))
        }
        EventsCommand::Workers(args) => workers(out, &stats(session, &events, args).await?.workers),
    }
}

async fn stream(events: &EventService, out: Output, args: StreamArgs) -> Result<(), CliError> {
    let filter = EventFilter::from(args.filter);
    let (recent, position) = events.recent(&filter, args.tail.unwrap_or(0) as usize).await?;
    for event in &recent {
        print(out, event)?;
    }
    if !args.follow && args.tail.is_some() {
        if recent.is_empty() {
            out.note("no such event is kept");
        }
        return Ok(());
    }
    let mut stream = events.stream(filter, position).await?;
    out.note("following; Ctrl-C stops");
    loop {
        print(out, &stream.next().await)?;
    }
}

fn print(out: Output, event: &Event) -> Result<(), CliError> {
    let job = event.job_id.as_ref().map_or("-", JobId::as_str);
    let queue = event.queue.as_ref().map_or("-", |queue| queue.as_str());
    let kind = event.kind.as_deref().unwrap_or("-");
    out.one(event, || {
        let (time, event_type) = (event.time, &event.event_type);
        let text = format!("{time}  {event_type:<16} {job:<32} {queue:<10} {kind:<16} {}", remarks(event));
        text.trim_end().to_owned()
    })
}

/// What else is known of an event, for people.
fn remarks(event: &Event) -> String {
    let details = &event.details;
    let mut text = String::new();
    let mut say = |name: &str, value: String| {
        let gap = if text.is_empty() { "" } else { "  " };
        // Writing to a string does not fail.
        let _written = write!(text, "{gap}{name}{value}");
    };
    if let Some(attempt) = event.attempt.filter(|attempt| *attempt > 1) {
        say("attempt ", attempt.to_string());
    }
    if let Some(wait) = details.wait {
        say("waited ", span(wait));
    }
    if let Some(ran) = details.duration {
        say("ran ", span(ran));
    }
    if let Some(time) = details.run_at {
        say("at ", time.to_string());
    }
    if let Some(fraction) = details.fraction {
        say("", format!("{:.0} %", fraction * 100.0));
    }
    if let Some(count) = details.count {
        say("count ", count.to_string());
    }
    match (&details.error_type, &details.message) {
        (Some(error), Some(message)) => say("", format!("{error}: {}", one_line(message))),
        (Some(error), None) => say("", error.to_string()),
        (None, Some(message)) => say("", one_line(message)),
        (None, None) => {}
    }
    if let Some(schedule) = &event.schedule_id {
        say("schedule ", schedule.to_string());
    }
    if let Some(worker) = &event.worker_id {
        say("by ", worker.to_string());
    }
    text
}

/// A duration to three or four digits.
fn span(time: Duration) -> String {
    let micros = time.as_micros();
    let step = match micros {
        0..10_000 => 1,
        10_000..10_000_000 => 1_000,
        10_000_000..600_000_000 => 100_000,
        _ => 1_000_000,
    };
    duration::format(Duration::from_micros(u64::try_from(micros / step * step).unwrap_or(u64::MAX)))
}

pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn history(events: &EventService, out: Output, job: &JobId) -> Result<(), CliError> {
    let history = events.history(job).await?;
    let Some(first) = history.first() else {
        return Err(CliError::not_found(format!("no event of job {job} is kept"))
            .with_hint("`naq job status` says whether the job exists; events are kept for events.stream.max_age"));
    };
    if out.is_json() {
        return out.list(&history, [""], |_| [String::new()], "");
    }
    let queue = first.queue.as_ref().map_or("-", |queue| queue.as_str());
    let kind = history.iter().find_map(|event| event.kind.as_deref()).unwrap_or("-");
    line(&format!("job {job}  kind {kind}  queue {queue}"))?;
    line(&table(["time", "after", "event", ""], steps(&history).into_iter()))?;
    line(&summary(&history))
}

/// What happened to one job, step by step: time, time since the step before, event, what else is known.
pub(super) fn steps(history: &[Event]) -> Vec<[String; 4]> {
    let mut before = history.first().map(|event| event.time);
    let step = |event: &Event| {
        let after = event.time.since(before.replace(event.time).unwrap_or(event.time));
        [event.time.to_string(), format!("+{}", span(after)), event.event_type.to_string(), remarks(event)]
    };
    history.iter().map(step).collect()
}

/// How long everything took.
pub(super) fn summary(history: &[Event]) -> String {
    let sum = |of: fn(&Event) -> Option<Duration>| history.iter().filter_map(of).sum::<Duration>();
    let attempts = history.iter().filter(|event| event.event_type == EventType::Started).count();
    let total = match (history.first(), history.last()) {
        (Some(first), Some(last)) => last.time.since(first.time),
        _ => Duration::ZERO,
    };
    format!(
        "{attempts} run{} took {}, waiting for a worker {}, all together {}",
        if attempts == 1 { "" } else { "s" },
        span(sum(|event| event.details.duration)),
        span(sum(|event| event.details.wait)),
        span(total)
    )
}

async fn stats(session: &Session, events: &EventService, args: WindowArgs) -> Result<EventStats, CliError> {
    let now = session.jobs().await?.storage().now().await?;
    let filter = EventFilter { since: Some(now.saturating_sub(args.window)), ..EventFilter::from(args.filter) };
    let stats = events.stats(&filter).await?;
    if stats.events == 0 && !session.config().events.enabled {
        session.output().note("events are turned off here (events.enabled)");
    }
    Ok(stats)
}

fn seconds(seconds: f64) -> String {
    span(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn spread(name: &str, spread: &Spread) -> [String; 6] {
    let times = [spread.p50, spread.p95, spread.p99, spread.max].map(seconds);
    let [p50, p95, p99, max] = times;
    [name.to_owned(), spread.count.to_string(), p50, p95, p99, max]
}

fn describe(stats: &EventStats) -> String {
    let mut parts = vec![format!("{} events from {} to {}", stats.events, stats.since, stats.until)];
    if stats.events == 0 {
        return parts.remove(0);
    }
    let rates = stats.types.iter().map(|(name, count)| {
        let rate = stats.rates.get(name).copied().unwrap_or_default();
        [name.clone(), count.to_string(), format!("{rate}/s")]
    });
    parts.push(table(["event", "count", "rate"], rates));
    let times = [spread("wait", &stats.wait), spread("run", &stats.run)];
    parts.push(table(["time", "count", "p50", "p95", "p99", "max"], times.into_iter()));
    if !stats.kinds.is_empty() {
        let kinds = stats.kinds.iter().take(ROWS).map(|kind| {
            [
                kind.kind.clone(),
                kind.started.to_string(),
                kind.completed.to_string(),
                kind.failed.to_string(),
                kind.retried.to_string(),
                seconds(kind.run.p50),
                seconds(kind.run.p99),
            ]
        });
        parts.push(table(["kind", "started", "completed", "failed", "retried", "run p50", "run p99"], kinds));
    }
    if !stats.failures.is_empty() {
        let failures = stats.failures.iter().take(ROWS).map(|failure| {
            [
                failure.kind.clone(),
                failure.error_type.clone(),
                failure.count.to_string(),
                failure.last_at.to_string(),
                one_line(&failure.last_message).chars().take(60).collect(),
            ]
        });
        parts.push(table(["failed kind", "error", "count", "last", "message"], failures));
    }
    parts.join("\n\n")
}

fn workers(out: Output, workers: &[WorkerActivity]) -> Result<(), CliError> {
    out.list(
        workers,
        ["worker", "host", "state", "last event", "started", "completed", "failed", "retried", "busy"],
        |worker| {
            let state = worker.last_state.as_ref().map_or("-", EventType::as_str);
            [
                worker.worker_id.clone(),
                worker.host.clone().unwrap_or_default(),
                state.strip_prefix("worker_").unwrap_or(state).to_owned(),
                worker.last_event_at.to_string(),
                worker.started.to_string(),
                worker.completed.to_string(),
                worker.failed.to_string(),
                worker.retried.to_string(),
                seconds(worker.busy),
            ]
        },
        "no worker told anything in this time",
    )
}
