//! `naq system …`: version, doctor, completions, manual page.

use clap::CommandFactory;
use naq_services::storage::{Finding, Severity};
use serde::Serialize;

use crate::{
    args::{Cli, SystemCommand},
    error::CliError,
    output::{self, Output},
    session::Session,
};

pub(crate) async fn run(session: &Session, command: SystemCommand) -> Result<(), CliError> {
    let out = session.output();
    match command {
        SystemCommand::Version => version(out),
        SystemCommand::Doctor => doctor(session).await,
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

#[derive(Serialize)]
struct Report<'a> {
    store: &'a str,
    backend: &'a str,
    version: &'a str,
    findings: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    severity: &'static str,
    subject: String,
    message: String,
    advice: String,
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

async fn doctor(session: &Session) -> Result<(), CliError> {
    let (jobs, out) = (session.jobs().await?, session.output());
    let mut findings = jobs.storage().diagnose().await?;
    let workers = naq_worker::list_workers(&**jobs.storage()).await?.len();
    findings.push(if workers == 0 {
        Finding {
            severity: Severity::Warning,
            subject: "workers".into(),
            message: "no worker is alive: nothing runs, and no delayed job or retry becomes due".into(),
            advice: "start one: naq worker start".into(),
        }
    } else {
        let message = format!("{workers} alive");
        Finding { severity: Severity::Ok, subject: "workers".into(), message, advice: String::new() }
    });
    let info = jobs.storage().info();
    let rows: Vec<Row> = findings
        .into_iter()
        .map(|Finding { severity, subject, message, advice }| Row {
            severity: word(severity),
            subject,
            message,
            advice,
        })
        .collect();
    let failed = rows.iter().filter(|row| row.severity == word(Severity::Error)).count();
    let report = Report { store: &info.location, backend: info.backend, version: &info.version, findings: rows };
    out.one(&report, || {
        let lines = report.findings.iter().map(|row| {
            let advice = if row.advice.is_empty() { String::new() } else { format!("\n         {}", row.advice) };
            format!("{:<8} {}: {}{advice}", row.severity, row.subject, row.message)
        });
        let head = format!("{} {} at {}", report.backend, report.version, report.store);
        std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
    })?;
    if failed > 0 { Err(CliError::failed(format!("{failed} findings need attention"))) } else { Ok(()) }
}
