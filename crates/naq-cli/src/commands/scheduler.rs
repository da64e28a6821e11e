//! `naq scheduler …`: recurring jobs, to define, to look at, to change. `start` is with the workers.

use naq_models::{JobId, QueueName, ScheduleId, ScheduleRecord, ScheduleStatus, Timestamp, Timing, duration};
use naq_services::{
    NewJob, SchedulerService,
    scheduler::{Changed, ScheduleView, Triggered, UpsertOutcome},
};
use serde::Serialize;

use super::{confirm, job::read_args};
use crate::{
    args::{SchedulerCommand, UpsertArgs},
    configured::{self, Recurrence},
    error::CliError,
    output::{Output, note},
    session::Session,
};

/// How many runs `show` looks ahead.
const UPCOMING: usize = 5;

pub(crate) async fn run(session: &Session, command: SchedulerCommand) -> Result<(), CliError> {
    if let SchedulerCommand::Start(args) = &command {
        return super::worker::scheduler(session, args).await;
    }
    let (jobs, out) = (session.jobs().await?, session.output());
    let service = SchedulerService::new(jobs.clone());
    match command {
        SchedulerCommand::Start(_) => unreachable!("it was run above"),
        SchedulerCommand::Jobs => list(&service, out).await,
        SchedulerCommand::Show { id } => show(out, &service.get(&id).await?),
        SchedulerCommand::Upsert(args) => upsert(&service, out, *args).await,
        SchedulerCommand::Pause { id } => changed(out, &service.pause(&id).await?, "paused"),
        SchedulerCommand::Resume { id } => changed(out, &service.resume(&id).await?, "resumed"),
        SchedulerCommand::Cancel { id } => changed(out, &service.cancel(&id).await?, "cancelled"),
        SchedulerCommand::Trigger { id } => triggered(out, &id, &service.trigger(&id).await?),
        SchedulerCommand::Prune { yes } => {
            let declared = configured::schedules(session.config(), &service)?;
            confirm(out, yes, "Remove every schedule that a configuration declared once and this one does not?")?;
            let removed = service.prune(&declared).await?;
            out.one(&Pruned { removed: &removed }, || match removed.as_slice() {
                [] => "nothing to remove".to_owned(),
                removed => format!("removed: {}", names(removed)),
            })
        }
    }
}

#[derive(Serialize)]
struct Pruned<'a> {
    removed: &'a [ScheduleId],
}

fn names(ids: &[ScheduleId]) -> String {
    ids.iter().map(ScheduleId::as_str).collect::<Vec<_>>().join(", ")
}

async fn list(service: &SchedulerService, out: Output) -> Result<(), CliError> {
    let list = service.list().await?;
    for id in &list.unreadable {
        note(&format!("warning: schedule {id} cannot be read; a newer naq may have written it"));
    }
    let views: Vec<ScheduleView> = list.schedules.iter().map(ScheduleView::from).collect();
    out.list(
        &views,
        ["id", "kind", "queue", "when", "status", "next", "runs", "last run"],
        |view| {
            [
                view.schedule_id.to_string(),
                view.kind.clone(),
                view.queue.to_string(),
                when(&view.definition.timing),
                view.status.to_string(),
                time(view.next),
                view.runs.to_string(),
                time(view.last_due),
            ]
        },
        "no recurring job is defined",
    )
}

/// What `show` prints: the schedule and its next runs.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    view: ScheduleView,
    upcoming: Vec<Upcoming>,
}

#[derive(Serialize)]
struct Upcoming {
    utc: Timestamp,
    /// In the zone of the schedule.
    local: String,
}

fn show(out: Output, record: &ScheduleRecord) -> Result<(), CliError> {
    let zone = record.definition.timing.zone();
    let upcoming = record.upcoming(UPCOMING).into_iter();
    let upcoming = upcoming.map(|utc| Upcoming { utc, local: zone.format(utc) }).collect();
    let shown = Shown { view: ScheduleView::from(record), upcoming };
    out.one(&shown, || describe(record, &shown))
}

fn describe(record: &ScheduleRecord, shown: &Shown) -> String {
    let (view, definition) = (&shown.view, &record.definition);
    let mut lines = vec![
        ("id", view.schedule_id.to_string()),
        ("status", view.status.to_string()),
        ("when", when(&definition.timing)),
        ("kind", view.kind.clone()),
        ("queue", view.queue.to_string()),
        ("args", definition.job.as_job().args.get().to_owned()),
        ("missed runs", word(&definition.missed)),
        ("overlap", word(&definition.overlap)),
        ("runs", view.runs.to_string()),
        ("skipped", view.skipped.to_string()),
        ("last run", view.last_run_id.as_ref().map_or_else(|| "none yet".to_owned(), JobId::to_string)),
    ];
    let bounds = [("runs left", record.runs_left().map(|left| left.to_string()))];
    let times = [("start", definition.start), ("end", definition.end)];
    let times = times.map(|(name, time)| (name, time.map(|time| time.to_string())));
    lines.extend(bounds.into_iter().chain(times).filter_map(|(name, value)| Some((name, value?))));
    if view.from_config {
        lines.push(("defined by", "the configuration".to_owned()));
    }
    for (n, run) in shown.upcoming.iter().enumerate() {
        lines.push((if n == 0 { "next runs" } else { "" }, format!("{}  {}", run.local, run.utc)));
    }
    if shown.upcoming.is_empty() {
        let why = match record.status {
            ScheduleStatus::Active => "when the run that goes on has ended",
            ScheduleStatus::Paused => "none while it is paused",
            ScheduleStatus::Completed | ScheduleStatus::Cancelled => "none any more",
        };
        lines.push(("next runs", why.to_owned()));
    }
    lines.iter().map(|(name, value)| format!("{name:<12} {value}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// The timing in the words of the command line.
fn when(timing: &Timing) -> String {
    match timing {
        Timing::Cron(cron) => format!("cron {} ({})", cron.expression(), cron.zone().name()),
        Timing::Every(period) => format!("every {}", duration::format(*period)),
        Timing::After(delay) => format!("{} after the last run", duration::format(*delay)),
    }
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(String::new, |time| time.to_string())
}

/// A policy as it is stored.
fn word(policy: &impl Serialize) -> String {
    serde_json::to_value(policy).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

#[derive(Serialize)]
struct Upserted<'a> {
    schedule_id: &'a ScheduleId,
    outcome: UpsertOutcome,
    status: ScheduleStatus,
    next: Option<Timestamp>,
}

async fn upsert(service: &SchedulerService, out: Output, args: UpsertArgs) -> Result<(), CliError> {
    let timing = &args.timing;
    let recurrence = Recurrence {
        cron: timing.cron.as_deref(),
        every: timing.every,
        after: timing.after,
        tz: args.tz.as_deref(),
        repeat: args.repeat,
        start: args.start,
        end: args.end,
        missed: args.missed,
        overlap: args.overlap,
    };
    let mut job = NewJob::new(args.kind, read_args(&args.args)?);
    if let Some(queue) = &args.queue {
        job = job.queue(queue);
    }
    let upserted = service.upsert(&args.id, service.define(job, recurrence.schedule())?).await?;
    let record = &upserted.record;
    let told =
        Upserted { schedule_id: &record.id, outcome: upserted.outcome, status: record.status, next: record.next };
    out.one(&told, || {
        let next = record.next.map_or_else(String::new, |next| format!(", next at {next}"));
        format!("{} {}: {}{next}", record.id, word(&upserted.outcome), record.status)
    })
}

#[derive(Serialize)]
struct ChangedView<'a> {
    schedule_id: &'a ScheduleId,
    status: ScheduleStatus,
    changed: bool,
    next: Option<Timestamp>,
}

pub(super) fn changed(out: Output, changed: &Changed, done: &str) -> Result<(), CliError> {
    let Changed { changed, record } = changed;
    let view = ChangedView { schedule_id: &record.id, status: record.status, changed: *changed, next: record.next };
    out.one(&view, || {
        let next = record.next.map_or_else(String::new, |next| format!(", next at {next}"));
        if *changed {
            format!("{} {done}{next}", record.id)
        } else {
            format!("{} is {} already", record.id, record.status)
        }
    })
}

#[derive(Serialize)]
struct TriggeredView<'a> {
    schedule_id: &'a ScheduleId,
    job_id: &'a JobId,
    queue: &'a QueueName,
    due: Timestamp,
    enqueued: bool,
}

fn triggered(out: Output, id: &ScheduleId, triggered: &Triggered) -> Result<(), CliError> {
    let Triggered { job_id, due, enqueued, record } = triggered;
    let queue = &record.definition.job.as_job().queue;
    let view = TriggeredView { schedule_id: id, job_id, queue, due: *due, enqueued: *enqueued };
    out.one(&view, || {
        let how = if *enqueued { "enqueued" } else { "recorded; the leader will enqueue it" };
        format!("{job_id} of {id} {how} in {queue}")
    })
}
