//! `naq system …`: version, completions, manual page; the doctor is in `doctor`.

use clap::CommandFactory;
use serde::Serialize;

use crate::{
    args::{Cli, SystemCommand},
    commands::doctor,
    error::CliError,
    output::{self, Output},
    session::Session,
};

pub(crate) async fn run(session: &Session, command: SystemCommand) -> Result<(), CliError> {
    let out = session.output();
    match command {
        SystemCommand::Version => version(out),
        SystemCommand::Doctor => doctor::run(session).await,
        SystemCommand::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "naq", &mut script);
            output::line(String::from_utf8_lossy(&script).trim_end())
        }
        SystemCommand::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(|e| CliError::failed(format!("cannot write the manual page: {e}")))?;
            output::line(String::from_utf8_lossy(&page).trim_end())
        }
    }
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
    ];
    let features: Vec<_> = built.into_iter().filter_map(|(name, with)| with.then_some(name)).collect();
    let version = Version { version: env!("CARGO_PKG_VERSION"), features };
    out.one(&version, || format!("naq {} (built with {})", version.version, version.features.join(", ")))
}
