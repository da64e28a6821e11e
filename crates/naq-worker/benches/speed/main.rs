//! The measurements behind `cargo xtask bench`: naq against bare loops that make the same writes.
//!
//! Invariant: a ratio is taken within one run, the two sides in turn, on stores that are otherwise alike; absolute
//! numbers are for orientation. What is to be measured comes as JSON in the arguments, what was found goes as JSON into
//! a file. Servers are started, and the table is judged and printed, by xtask.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a terminal program: printing is what it is for")]

mod delayed;
mod events;
mod footprint;
mod jobs;
mod latency;
mod nats;
mod other_process;
mod plan;
mod report;
mod rounds;
mod run;
mod sqlite;

use std::process::ExitCode;

use anyhow::{Context, Result};

use plan::{Part, Plan};
use report::Report;

fn main() -> ExitCode {
    // cargo adds arguments of its own.
    let Some(text) = std::env::args().find(|argument| argument.starts_with('{')) else {
        eprintln!("run this with `cargo xtask bench`: it needs servers and says what to measure");
        return ExitCode::from(2);
    };
    match run(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(text: &str) -> Result<()> {
    let part: Part = serde_json::from_str(text).context("the plan cannot be read")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match part {
        Part::Measure(plan) => runtime.block_on(measure(&plan)),
        Part::Serve(role, served) => runtime.block_on(other_process::serve(role, &served)),
    }
}

async fn measure(plan: &Plan) -> Result<()> {
    let mut report = Report::default();
    if plan.sqlite {
        sqlite::measure(plan, &mut report).await.context("SQLite")?;
    }
    for server in &plan.nats {
        nats::measure(plan, server, &mut report).await.with_context(|| format!("nats-server {}", server.name))?;
    }
    report.write(&plan.out)
}
