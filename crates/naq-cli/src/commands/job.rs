//! `naq job …`: enqueue, look, wait, cancel, retry, reschedule, list, purge. `control` is in a file of its own.

use std::{io::Read, time::Duration};

use naq_models::{JobId, JobResult, JobStatus, RawJson};
use naq_services::{
    JobService, JobServiceErrorKind,
    jobs::{CancelOutcome, JobFilter, JobStatusView, Receipt, ResultState, ResultView},
    new_job::NewJob,
};
use serde::Serialize;

use super::{bulk, confirm, control};
use crate::{
    args::{EnqueueArgs, JobCommand, UniqueArgs, When},
    error::CliError,
    output::Output,
    session::Session,
};

/// How long `--wait` without a time waits beyond the job's own timeout and delay: for its turn.
const WAIT_SLACK: Duration = Duration::from_secs(24 * 3600);
/// Jobs named that another one waits for.
const WAITS_FOR_NAMED: usize = 10;
/// Jobs asked of the store at a time.
const PAGE: usize = 500;

pub(crate) async fn run(session: &Session, command: JobCommand) -> Result<(), CliError> {
    let (jobs, out) = (session.jobs().await?, session.output());
    match command {
        JobCommand::Enqueue(args) => match &args.from {
            Some(source) => bulk::run(&jobs, out, source, args.unique.on_conflict.unwrap_or_default()).await,
            None => enqueue(&jobs, out, *args).await,
        },
        JobCommand::Status { id } => {
            let view = jobs.status(&id).await?;
            out.one(&view, || describe(&view))
        }
        JobCommand::Result { id, wait } => result(&jobs, out, &id, wait).await,
        JobCommand::Cancel { ids, reason } => cancel(&jobs, out, &ids, &reason).await,
        JobCommand::Retry { ids } => retry(&jobs, out, &ids).await,
        JobCommand::Reschedule { id, when } => reschedule(&jobs, out, &id, &when).await,
        JobCommand::Control { id, verb } => control::run(&jobs, out, id, verb).await,
        JobCommand::List { queue, status, kind, limit } => {
            let filter = JobFilter { queue, statuses: status, kind, ..JobFilter::default() };
            list(out, &collect(&jobs, out, filter, limit as usize).await?)
        }
        JobCommand::Purge { queues, yes } => {
            for queue in queues {
                confirm(out, yes, &format!("Cancel every pending job of queue {queue}?"))?;
                let purged = jobs.purge_queue(&queue).await?;
                super::queue::print_purged(out, &queue, purged)?;
            }
            Ok(())
        }
    }
}

async fn enqueue(jobs: &JobService, out: Output, args: EnqueueArgs) -> Result<(), CliError> {
    let wait = args.wait;
    let kept = args.result_ttl.unwrap_or(jobs.settings().defaults.result_ttl);
    if wait.is_some() && kept.is_zero() {
        return Err(CliError::failed("--wait: the job would keep no result to wait for (no_result_kept)")
            .with_hint("give it a --result-ttl, or leave --wait out"));
    }
    let job = new_job(args)?;
    let receipt = jobs.enqueue_many(vec![job]).await.pop().expect("one outcome per job")?;
    let Some(limit) = wait else {
        return out.one(&receipt, || receipt_line(&receipt));
    };
    let result = match jobs.wait_for(&receipt.job_id, limit.unwrap_or(WAIT_SLACK)).await {
        Err(error) => {
            out.note(&receipt_line(&receipt));
            return Err(error.into());
        }
        Ok(result) => result,
    };
    ended(out, &result)
}

fn new_job(args: EnqueueArgs) -> Result<NewJob, CliError> {
    let kind = args.kind.ok_or_else(|| CliError::usage("a kind is needed"))?;
    let mut job = NewJob::new(kind, read_args(&args.args)?);
    if let Some(queue) = args.queue {
        job = job.queue(queue);
    }
    if let Some(id) = args.job_id {
        job = job.job_id(id);
    }
    if let Some(delay) = args.delay {
        job = job.delay(delay);
    }
    if let Some(at) = args.at {
        job = job.at(at);
    }
    if let Some(priority) = args.priority {
        job = job.priority(priority.get());
    }
    if let Some(retries) = args.max_retries {
        job = job.max_retries(retries);
    }
    if !args.retry_delay.is_empty() {
        job = job.retry_delays(args.retry_delay);
    }
    if let Some(strategy) = args.retry_strategy {
        job = job.retry_strategy(strategy);
    }
    if let Some(timeout) = args.timeout {
        job = job.timeout(timeout);
    }
    if let Some(ttl) = args.result_ttl {
        job = job.result_ttl(ttl);
    }
    job = job.depends_on(&args.depends_on).on_dependency_failure(args.on_dependency_failure.unwrap_or_default());
    for (key, value) in args.meta {
        job = job.meta(key, value);
    }
    unique(job, args.unique)
}

fn unique(mut job: NewJob, args: UniqueArgs) -> Result<NewJob, CliError> {
    let UniqueArgs { unique_key, unique_while, unique_ttl, on_conflict } = args;
    let Some(key) = unique_key else {
        return match on_conflict {
            Some(_) => Err(CliError::usage("--on-conflict needs a key that can be taken: --unique-key KEY")),
            None => Ok(job),
        };
    };
    job = job.unique(key);
    if let Some(holds) = unique_while {
        job = job.unique_while(holds);
    }
    if let Some(ttl) = unique_ttl {
        job = job.unique_ttl(ttl);
    }
    if let Some(answer) = on_conflict {
        job = job.on_conflict(answer);
    }
    Ok(job)
}

/// The arguments as typed, or from standard input.
pub(super) fn read_args(text: &str) -> Result<RawJson, CliError> {
    let read;
    let text = if text == "-" {
        let mut input = String::new();
        std::io::stdin()
            .read_to_string(&mut input)
            .map_err(|e| CliError::usage(format!("cannot read arguments from standard input: {e}")))?;
        read = input;
        read.trim()
    } else {
        text
    };
    RawJson::parse(text).map_err(|e| {
        CliError::usage(format!("--args is not JSON: {e}"))
            .with_hint("write a JSON object or array, in single quotes: --args '{\"to\":\"a@b.c\"}'")
    })
}

async fn result(jobs: &JobService, out: Output, id: &JobId, wait: Option<Option<Duration>>) -> Result<(), CliError> {
    if let Some(limit) = wait {
        let result = jobs.wait_for(id, limit.unwrap_or(WAIT_SLACK)).await;
        match result {
            Ok(result) => return ended(out, &result),
            // What is known is printed even so: see below.
            Err(error) if error.kind() == JobServiceErrorKind::TimedOut => {}
            Err(error) => return Err(error.into()),
        }
    }
    match jobs.result(id).await? {
        ResultState::Ended(result) => ended(out, &result),
        ResultState::Unfinished(view) => {
            let unfinished = ResultView::from(&*view);
            if out.is_json() {
                out.one(&unfinished, String::new)?;
            }
            Err(CliError::timed_out(format!("job {id} has not ended: it is {}", view.status))
                .with_hint("wait for it with --wait"))
        }
    }
}

/// Prints how a job ended; a failed or cancelled one is exit code 1.
fn ended(out: Output, result: &JobResult) -> Result<(), CliError> {
    let view = ResultView::from(result);
    if out.is_json() {
        out.one(&view, String::new)?;
    } else if let Some(value) = &result.result {
        out.one(&view, || value.get().to_owned())?;
    }
    match (result.status, &result.error) {
        (JobStatus::Completed, _) => Ok(()),
        (status, Some(error)) => Err(CliError::failed(format!(
            "job {} {status} (attempt {}): {}: {}",
            result.id, result.attempt, error.error_type, error.message
        ))),
        (status, None) => Err(CliError::failed(format!("job {} {status}", result.id))),
    }
}

/// One line of an operation over several ids.
#[derive(Debug, Serialize)]
struct Change {
    job_id: JobId,
    #[serde(flatten)]
    outcome: CancelOutcome,
}

pub(super) async fn cancel(jobs: &JobService, out: Output, ids: &[JobId], reason: &str) -> Result<(), CliError> {
    let mut refused = None;
    for id in ids {
        match jobs.cancel(id, reason).await {
            Ok(outcome) => {
                out.one(&Change { job_id: id.clone(), outcome }, || cancel_line(id, outcome))?;
                if matches!(outcome, CancelOutcome::AlreadyEnded { .. }) {
                    refused = Some(CliError::failed(format!("job {id} had already ended; nothing was cancelled")));
                }
            }
            Err(error) => refused = Some(error.into()),
        }
    }
    refused.map_or(Ok(()), Err)
}

pub(super) fn cancel_line(id: &JobId, outcome: CancelOutcome) -> String {
    match outcome {
        CancelOutcome::Cancelled { was } => format!("{id} cancelled (was {was})"),
        CancelOutcome::AlreadyEnded { status: Some(JobStatus::Cancelled) } => format!("{id} had been cancelled before"),
        CancelOutcome::AlreadyEnded { status: Some(status) } => format!("{id} had already {status}"),
        CancelOutcome::AlreadyEnded { status: None } => format!("{id} had already ended"),
    }
}

async fn retry(jobs: &JobService, out: Output, ids: &[JobId]) -> Result<(), CliError> {
    let mut refused = None;
    for id in ids {
        match jobs.retry(id).await {
            Ok(receipt) => out.one(&receipt, || receipt_line(&receipt))?,
            Err(error) => refused = Some(error.into()),
        }
    }
    refused.map_or(Ok(()), Err)
}

pub(super) async fn reschedule(jobs: &JobService, out: Output, id: &JobId, when: &When) -> Result<(), CliError> {
    let receipt = jobs.reschedule(id, moment(jobs, when).await?).await?;
    out.one(&receipt, || receipt_line(&receipt))
}

async fn moment(jobs: &JobService, when: &When) -> Result<naq_models::Timestamp, CliError> {
    match (when.at, when.delay) {
        (Some(at), _) => Ok(at),
        (None, Some(delay)) => Ok(jobs.storage().now().await?.saturating_add(delay)),
        (None, None) => Err(CliError::usage("--delay or --at is needed")),
    }
}

/// The first `limit` jobs that match. Entries that cannot be read are named on standard error.
async fn collect(
    jobs: &JobService,
    out: Output,
    mut filter: JobFilter,
    limit: usize,
) -> Result<Vec<JobStatusView>, CliError> {
    let mut views = Vec::new();
    loop {
        filter.limit = (limit - views.len()).min(PAGE);
        let page = jobs.list(&filter).await?;
        for id in &page.unreadable {
            out.note(&format!("job {id} cannot be read; it will become a dead letter when a worker claims it"));
        }
        views.extend(page.jobs);
        views.truncate(limit);
        filter.cursor = page.next;
        if filter.cursor.is_none() || views.len() == limit {
            return Ok(views);
        }
    }
}

fn list(out: Output, views: &[JobStatusView]) -> Result<(), CliError> {
    out.list(
        views,
        ["id", "kind", "queue", "status", "attempt", "enqueued", "run at"],
        |view| {
            [
                view.job_id.to_string(),
                view.kind.clone(),
                view.queue.to_string(),
                view.status.to_string(),
                view.attempt.to_string(),
                view.enqueued_at.to_string(),
                view.run_at.map_or_else(String::new, |at| at.to_string()),
            ]
        },
        "no jobs match",
    )
}

/// A job for people: one `name value` line for each thing known.
fn describe(view: &JobStatusView) -> String {
    let mut lines = vec![
        ("id", view.job_id.to_string()),
        ("kind", view.kind.clone()),
        ("queue", view.queue.to_string()),
        ("status", view.status.to_string()),
        ("attempt", view.attempt.to_string()),
        ("enqueued", view.enqueued_at.to_string()),
    ];
    let times = [("due", view.run_at), ("started", view.started_at), ("finished", view.finished_at)];
    lines.extend(times.into_iter().filter_map(|(name, time)| Some((name, time?.to_string()))));
    if !view.waits_for.is_empty() {
        let ids: Vec<&str> = view.waits_for.iter().take(WAITS_FOR_NAMED).map(JobId::as_str).collect();
        let more = view.waits_for.len().saturating_sub(WAITS_FOR_NAMED);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        lines.push(("waits for", format!("{}{more}", ids.join(", "))));
    }
    if let Some(worker) = &view.worker_id {
        lines.push(("worker", worker.clone()));
    }
    if let Some(progress) = &view.progress {
        let message = progress.message.as_deref().map_or_else(String::new, |message| format!(" {message}"));
        lines.push(("progress", format!("{:.0} %{message} ({})", progress.fraction * 100.0, progress.at)));
    }
    if let Some(error) = &view.error {
        lines.push(("error", format!("{}: {}", error.error_type, error.message)));
    }
    lines.iter().map(|(name, value)| format!("{name:<9} {value}")).collect::<Vec<_>>().join("\n")
}

pub(super) fn receipt_line(receipt: &Receipt) -> String {
    let Receipt { job_id, queue, status, duplicate } = receipt;
    if *duplicate {
        format!("{job_id} was there before: {status} in {queue}")
    } else {
        format!("{job_id} {status} in {queue}")
    }
}
