//! `naq dead …`: failed jobs, to look at, to run again, to delete.

use naq_models::{JobId, QueueName};
use naq_services::{JobService, jobs::DeadLetterView};
use serde::Serialize;

use super::{confirm, job::receipt_line};
use crate::{
    args::DeadCommand,
    error::{CliError, with_sources},
    output::{Output, note},
    session::Session,
};

/// Letters asked of the store at a time.
const PAGE: usize = 500;
/// A body is shown up to so many bytes.
const SHOWN_BODY: usize = 64 * 1024;

pub(crate) async fn run(session: &Session, command: DeadCommand) -> Result<(), CliError> {
    let (jobs, out) = (session.jobs().await?, session.output());
    match command {
        DeadCommand::List { queue, limit } => list(&jobs, out, queue.as_ref(), limit as usize).await,
        DeadCommand::Show { id } => show(&jobs, out, &id).await,
        DeadCommand::Retry { all: true, queue, .. } => retry_all(&jobs, out, queue.as_ref()).await,
        DeadCommand::Retry { ids, .. } => {
            let mut refused = None;
            for id in &ids {
                match jobs.dead_retry(id).await {
                    Ok(receipt) => out.one(&receipt, || receipt_line(&receipt))?,
                    Err(error) => refused = Some(error.into()),
                }
            }
            refused.map_or(Ok(()), Err)
        }
        DeadCommand::Purge { queue, yes } => {
            let of = queue.as_ref().map_or_else(String::new, |queue| format!(" of queue {queue}"));
            confirm(out, yes, &format!("Delete every failed job{of} for good?"))?;
            let purged = jobs.dead_purge_all(queue.as_ref()).await?;
            out.one(&Purged { purged }, || format!("{purged} failed jobs deleted"))
        }
    }
}

#[derive(Serialize)]
struct Purged {
    purged: u64,
}

async fn list(jobs: &JobService, out: Output, queue: Option<&QueueName>, limit: usize) -> Result<(), CliError> {
    let (mut views, mut cursor) = (Vec::new(), None);
    loop {
        let page = jobs.dead_list(queue, (limit - views.len()).min(PAGE), cursor).await?;
        views.extend(page.letters.iter().map(DeadLetterView::from));
        views.truncate(limit);
        cursor = page.next;
        if cursor.is_none() || views.len() == limit {
            break;
        }
    }
    out.list(
        &views,
        ["id", "kind", "queue", "failed at", "error", "message"],
        |view| {
            let message = view.error.message.lines().next().unwrap_or_default();
            [
                view.job_id.to_string(),
                view.kind.clone().unwrap_or_default(),
                view.queue.to_string(),
                view.failed_at.to_string(),
                view.error.error_type.clone(),
                message.chars().take(80).collect(),
            ]
        },
        "no failed jobs",
    )
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    view: DeadLetterView,
    /// The original bytes; bytes that are not UTF-8 are replaced.
    body: String,
}

async fn show(jobs: &JobService, out: Output, id: &JobId) -> Result<(), CliError> {
    let letter = jobs.dead_show(id).await?;
    let view = DeadLetterView::from(&letter);
    let shown = &letter.body[..letter.body.len().min(SHOWN_BODY)];
    let shown = Shown { view, body: String::from_utf8_lossy(shown).into_owned() };
    out.one(&shown, || {
        let Shown { view, body } = &shown;
        let kind = view.kind.as_deref().unwrap_or("(not a job)");
        let mut text = format!(
            "id      {}\nkind    {kind}\nqueue   {}\nfailed  {}\nerror   {}: {}\nbody    {body}",
            view.job_id, view.queue, view.failed_at, view.error.error_type, view.error.message
        );
        if let Some(trace) = &view.error.backtrace {
            text.push_str("\n\n");
            text.push_str(trace);
        }
        text
    })
}

#[derive(Serialize)]
struct Retried {
    retried: u64,
    refused: u64,
}

async fn retry_all(jobs: &JobService, out: Output, queue: Option<&QueueName>) -> Result<(), CliError> {
    let report = jobs.dead_retry_all(queue).await?;
    for (id, error) in &report.examples {
        note(&format!("{id}: {}", with_sources(error)));
    }
    let (retried, refused) = (report.retried, report.refused);
    out.one(&Retried { retried, refused }, || format!("{retried} failed jobs run again, {refused} could not"))?;
    if refused > 0 { Err(CliError::failed(format!("{refused} failed jobs could not be run again"))) } else { Ok(()) }
}
