//! The chaos harness: `chaos STORE SECONDS SEED FOLDER`; what it is for and what it prints is in `naq_tests::chaos`.
//!
//! Exit code 0 if every promise was kept, 1 if one was broken, 2 if the harness itself failed.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program: printing is what it is for")]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use naq_tests::chaos::{Chaos, Programs, Report};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(report) => {
            println!("{}\n{}processes that gave up{:>19}", report.verdict, report.recovery, report.gave_up);
            println!("longest wait for the disk, seconds{:>7.2}", report.slowest.as_secs_f64());
            if report.verdict.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run() -> Result<Report> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [store, seconds, seed, folder] = &words[..] else { anyhow::bail!("usage: chaos STORE SECONDS SEED FOLDER") };
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder)?;
    let programs = std::env::current_exe()?;
    let sibling = |name| programs.with_file_name(name);
    let chaos = Chaos {
        store: store.parse()?,
        length: Duration::from_secs(seconds.parse().context("SECONDS is a number")?),
        seed: seed.parse().context("SEED is a number")?,
        folder: folder.canonicalize()?,
        programs: Programs { worker: sibling("test-worker"), producer: sibling("chaos-producer") },
    };
    tokio::select! {
        report = chaos.run() => report,
        // Everything that was started ends with it, also what is stopped.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}
