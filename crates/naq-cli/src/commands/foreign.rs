//! `naq system migrate --from-system …`: jobs of the Python NAQ and of OmniQ.
//!
//! Invariant: thin. What is read, mapped, stored and removed is `naq_services::foreign`; here both sides are opened, and
//! what stays there is named.

use std::sync::Arc;

use naq_config::StoreUrl;
use naq_services::{
    ServiceManager,
    foreign::{ForeignOptions, ForeignReport, ForeignStore, ForeignSystem},
};

use crate::{
    args::MigrateArgs,
    commands::migrate::{Summary, with_prefix},
    error::CliError,
    output::{self, Output, note},
    session::Session,
};

pub(crate) async fn run(session: &Session, args: &MigrateArgs, system: ForeignSystem) -> Result<(), CliError> {
    let config = with_prefix(session.config(), args.to_prefix.as_deref());
    ForeignStore::check_destination(&args.to, &config).await?;
    let mut source = ForeignStore::open(system, &args.from, &config).await?;
    // A dry run needs the settings only, and is not to make anything at the destination.
    let in_memory = args.dry_run && cfg!(feature = "sqlite");
    let to = if in_memory { StoreUrl::Memory { name: "dry-run".to_owned() } } else { args.to.clone() };
    let destination = ServiceManager::new(Arc::new(config), to);
    let outcome = bring_over(&mut source, &destination, args).await;
    destination.close().await;
    source.close().await;
    let report = outcome?;
    let summary =
        Summary { from: args.from.to_string(), to: args.to.to_string(), dry_run: args.dry_run, report: &report };
    print(session.output(), &summary)?;
    for left in &report.left {
        for example in &left.examples {
            note(&format!("left: {}: {}", example.place, [left.reason.words(), &example.detail].join(": ")));
        }
    }
    match report.open() {
        0 => Ok(()),
        _ if args.dry_run => Ok(()),
        open => Err(CliError::failed(format!("{open} jobs stay where they are"))
            .with_hint("let the old workers run them, or mend them there and call it again: it goes on")),
    }
}

async fn bring_over(
    source: &mut ForeignStore,
    destination: &ServiceManager,
    args: &MigrateArgs,
) -> Result<ForeignReport, CliError> {
    let options = ForeignOptions { kinds: args.kind.iter().cloned().collect(), dry_run: args.dry_run };
    Ok(source.bring_over(&destination.scheduler().await?, &options).await?)
}

fn print(out: Output, summary: &Summary<'_, ForeignReport>) -> Result<(), CliError> {
    out.one(summary, || {
        let ForeignReport { pending, scheduled, waiting, recurring, failed, already_here, .. } = *summary.report;
        let rows = [
            ("pending jobs", pending),
            ("scheduled jobs", scheduled),
            ("waiting jobs", waiting),
            ("recurring jobs", recurring),
            ("dead letters", failed),
            ("here from before", already_here),
        ];
        let rows = rows.into_iter().map(|(what, count)| (what.to_owned(), count));
        let left = summary.report.left.iter().map(|left| (format!("left: {}", left.reason.words()), left.count));
        let head = if summary.dry_run { "to be moved" } else { "moved" };
        output::table(["what", head], rows.chain(left).map(|(what, count)| [what, count.to_string()]))
    })
}
