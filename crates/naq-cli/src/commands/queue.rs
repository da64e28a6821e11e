//! `naq queue …`: numbers, pause, resume, purge.

use naq_models::QueueName;
use naq_services::jobs::QueueReport;
use serde::Serialize;

use super::confirm;
use crate::{args::QueueCommand, error::CliError, output::Output, session::Session};

pub(crate) async fn run(session: &Session, command: QueueCommand) -> Result<(), CliError> {
    let (jobs, out) = (session.jobs().await?, session.output());
    match command {
        QueueCommand::List => list(out, &jobs.queues().await?),
        QueueCommand::Stats { queue } => {
            let report = jobs.queue(&queue).await?;
            out.one(&report, || describe(&report))
        }
        QueueCommand::Pause { queue } => {
            let changed = jobs.pause(&queue).await?;
            paused(out, &queue, true, changed)
        }
        QueueCommand::Resume { queue } => {
            let changed = jobs.resume(&queue).await?;
            paused(out, &queue, false, changed)
        }
        QueueCommand::Purge { queue, yes } => {
            confirm(out, yes, &format!("Cancel every pending job of queue {queue}?"))?;
            print_purged(out, &queue, jobs.purge_queue(&queue).await?)
        }
    }
}

fn list(out: Output, reports: &[QueueReport]) -> Result<(), CliError> {
    out.list(
        reports,
        ["queue", "pending", "running", "scheduled", "retry", "waiting", "failed", "oldest pending", ""],
        |report| {
            [
                report.queue.to_string(),
                report.pending.to_string(),
                report.running.to_string(),
                report.scheduled.to_string(),
                report.retry.to_string(),
                report.waiting.to_string(),
                report.failed.to_string(),
                report.oldest_pending.map_or_else(String::new, |time| time.to_string()),
                if report.paused { "paused".to_owned() } else { String::new() },
            ]
        },
        "no queue has held a job yet",
    )
}

fn describe(report: &QueueReport) -> String {
    let mut lines = vec![("queue", report.queue.to_string()), ("paused", report.paused.to_string())];
    lines.push(("pending", report.pending.to_string()));
    let names = ["  priority 0", "  priority 1", "  priority 2", "  priority 3"];
    lines.extend(names.into_iter().zip(report.pending_by_priority.map(|n| n.to_string())));
    lines.extend([
        ("running", report.running.to_string()),
        ("scheduled", report.scheduled.to_string()),
        ("retry", report.retry.to_string()),
        ("waiting", report.waiting.to_string()),
        ("failed", report.failed.to_string()),
    ]);
    if let Some(time) = report.oldest_pending {
        lines.push(("oldest", time.to_string()));
    }
    lines.iter().map(|(name, value)| format!("{name:<13} {value}")).collect::<Vec<_>>().join("\n")
}

#[derive(Serialize)]
struct Paused<'a> {
    queue: &'a QueueName,
    paused: bool,
    changed: bool,
}

fn paused(out: Output, queue: &QueueName, paused: bool, changed: bool) -> Result<(), CliError> {
    out.one(&Paused { queue, paused, changed }, || pause_line(queue, paused, changed))
}

pub(super) fn pause_line(queue: &QueueName, paused: bool, changed: bool) -> String {
    match (paused, changed) {
        (true, true) => format!("{queue} paused: nothing new starts, what runs goes on"),
        (true, false) => format!("{queue} was paused already"),
        (false, true) => format!("{queue} resumed"),
        (false, false) => format!("{queue} was not paused"),
    }
}

#[derive(Serialize)]
struct Purged<'a> {
    queue: &'a QueueName,
    purged: u64,
}

pub(super) fn print_purged(out: Output, queue: &QueueName, purged: u64) -> Result<(), CliError> {
    out.one(&Purged { queue, purged }, || format!("{purged} pending jobs of {queue} cancelled"))
}
