//! `naq system migrate`: from one store to another.
//!
//! Invariant: thin. What moves, in which order, and what a kill leaves is `naq_services::migration`; here both stores are
//! opened, the source's scheduler is kept still meanwhile, and it is told what became of it.

use std::{
    io::{self, IsTerminal},
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressStyle};
use naq_config::{NaqConfig, StoreUrl};
use naq_models::{JobId, Timestamp};
use naq_services::{
    JobService, JobSettings, ServiceManager, StorageError, StorageErrorKind,
    migration::{self, Migration, MigrationReport},
};
use naq_worker::{Leader, LockHold, SchedulerOptions};
use serde::Serialize;

use crate::{
    args::MigrateArgs,
    commands::foreign,
    error::CliError,
    output::{self, Output, note},
    session::Session,
};

/// What is left is named on standard error up to so many times; JSON has all.
const SHOWN_LEFT: usize = 20;

/// What became of a move, with its report.
#[derive(Serialize)]
pub(super) struct Summary<'a, R> {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) dry_run: bool,
    #[serde(flatten)]
    pub(super) report: &'a R,
}

pub(crate) async fn run(session: &Session, args: &MigrateArgs) -> Result<(), CliError> {
    if let Some(system) = args.from_system {
        return foreign::run(session, args, system.into()).await;
    }
    if let StoreUrl::Sqlite { path } = &args.from
        && !path.exists()
    {
        let detail = format!("there is no file {}", path.display());
        return Err(StorageError::new(StorageErrorKind::Unreachable, "open", detail).into());
    }
    let source = manager(session.config(), &args.from, args.from_prefix.as_deref());
    let destination = manager(session.config(), &args.to, args.to_prefix.as_deref());
    let outcome = between(session, &source, &destination, args.dry_run).await;
    destination.close().await;
    source.close().await;
    outcome
}

fn manager(config: &NaqConfig, url: &StoreUrl, prefix: Option<&str>) -> ServiceManager {
    ServiceManager::new(Arc::new(with_prefix(config, prefix)), url.clone())
}

/// The configuration of one side.
pub(super) fn with_prefix(config: &NaqConfig, prefix: Option<&str>) -> NaqConfig {
    let mut config = config.clone();
    if let Some(prefix) = prefix {
        prefix.clone_into(&mut config.queues.prefix);
    }
    config
}

/// The jobs of a store; nobody is told of what happens to them on the way.
async fn jobs_of(services: &ServiceManager) -> Result<JobService, CliError> {
    Ok(JobService::new(services.storage().await?, JobSettings::from(&**services.config())))
}

async fn between(
    session: &Session,
    source: &ServiceManager,
    destination: &ServiceManager,
    dry_run: bool,
) -> Result<(), CliError> {
    let from = jobs_of(source).await?;
    let report = if dry_run {
        // The destination is not even opened: it would be made.
        migration::count(&from).await?
    } else {
        undisturbed(session, &from, &Migration::new(from.clone(), jobs_of(destination).await?)).await?
    };
    let [from, to] = [source, destination].map(|services| services.store().url.to_string());
    let summary = Summary { from, to, dry_run, report: &report };
    print(session.output(), &summary)?;
    if dry_run || (report.left.is_empty() && report.remaining == 0) {
        return Ok(());
    }
    for left in report.left.iter().take(SHOWN_LEFT) {
        note(&format!("left: {}: {}", left.id, left.reason));
    }
    let message = format!("{} jobs and dead letters are still at the source", report.remaining);
    Err(CliError::failed(message).with_hint("mend what is named, stop the producers of the source, and call it again"))
}

/// Moves while nobody else leads the source's scheduler.
async fn undisturbed(session: &Session, from: &JobService, migration: &Migration) -> Result<MigrationReport, CliError> {
    let holder = format!("migration-{}", JobId::generate(Timestamp::EPOCH, rand::random()));
    let storage = from.storage();
    let options = SchedulerOptions::of(session.config());
    let Some(mut hold) = LockHold::take(storage.clone(), holder, options).await? else {
        let leader = Leader::look(&**storage).await?.map_or_else(|| "somebody".to_owned(), |leader| leader.holder);
        return Err(CliError::failed(format!("{leader} leads the source's scheduler"))
            .with_hint("stop the workers and schedulers of the source"));
    };
    let bar = progress();
    let watcher = |report: &MigrationReport| bar.set_position(report.moved());
    let outcome = tokio::select! {
        outcome = migration.run(&watcher) => outcome.map_err(CliError::from),
        error = hold.lost() => Err(match error {
            Some(error) => error.into(),
            None => CliError::failed("somebody else leads the source's scheduler now")
                .with_hint("stop the workers of the source and call it again: it goes on"),
        }),
    };
    bar.finish_and_clear();
    hold.release().await;
    outcome
}

fn print(out: Output, summary: &Summary<'_, MigrationReport>) -> Result<(), CliError> {
    out.one(summary, || {
        let MigrationReport { pending, scheduled, retry, waiting, dead, results, schedules, .. } = *summary.report;
        let MigrationReport { schedules_there, paused_queues, duplicates, remaining, .. } = *summary.report;
        let rows = [
            ("pending jobs", pending),
            ("scheduled jobs", scheduled),
            ("retries", retry),
            ("waiting jobs", waiting),
            ("dead letters", dead),
            ("results", results),
            ("recurring jobs", schedules),
            ("recurring jobs that were there", schedules_there),
            ("paused queues", paused_queues),
            ("jobs that were there", duplicates),
            ("at the source", remaining),
        ];
        let head = if summary.dry_run { "to be moved" } else { "moved" };
        output::table(["what", head], rows.iter().map(|(what, count)| [(*what).to_owned(), count.to_string()]))
    })
}

/// How much has been moved; hidden where nobody watches.
fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {pos} moved ({per_sec})").expect("a fixed template");
    ProgressBar::new_spinner().with_style(style)
}
