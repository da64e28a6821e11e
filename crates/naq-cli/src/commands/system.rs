//! `naq system …`: version, completions, manual page; the doctor is in `doctor`, the configuration in `config`.
//!
//! Invariant: what needs no store needs no right configuration either.

use clap::CommandFactory;
use serde::Serialize;

use crate::{
    args::{Cli, GlobalArgs, SystemCommand},
    commands::{config, doctor, migrate},
    error::CliError,
    output::{self, Output},
    session::{QUIET, Session},
};

pub(crate) async fn run(global: &GlobalArgs, command: SystemCommand) -> Result<(), CliError> {
    let out = Output::new(global.output);
    match command {
        SystemCommand::Version => version(out),
        SystemCommand::Doctor => {
            let session = Session::start(global, QUIET)?;
            let outcome = doctor::run(&session).await;
            session.end().await;
            outcome
        }
        SystemCommand::Migrate(args) => {
            if global.url.is_some() {
                return Err(CliError::usage("the stores are named by --from and --to, not by --url"));
            }
            let session = Session::start(global, QUIET)?;
            let outcome = Box::pin(migrate::run(&session, &args)).await;
            session.end().await;
            outcome
        }
        SystemCommand::Config(args) if args.validate => config::validate(global, out),
        SystemCommand::Config(_) => config::show(global, out),
        SystemCommand::GenerateConfig { environment } => config::generate(environment),
        SystemCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "naq", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end())
        }
        SystemCommand::Man => manual(),
    }
}

fn manual() -> Result<(), CliError> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|e| CliError::failed(format!("cannot write the manual page: {e}")))?;
    output::line(String::from_utf8_lossy(&page).trim_end())
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    features: Vec<&'static str>,
}

fn version(out: Output) -> Result<(), CliError> {
    let built = [
        ("nats", cfg!(feature = "nats")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("bincode", cfg!(feature = "bincode")),
        ("otel", cfg!(feature = "otel")),
    ];
    let features: Vec<_> = built.into_iter().filter_map(|(name, with)| with.then_some(name)).collect();
    let version = Version { version: env!("CARGO_PKG_VERSION"), features };
    out.one(&version, || format!("naq {} (built with {})", version.version, version.features.join(", ")))
}
