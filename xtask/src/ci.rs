//! `cargo xtask ci`: everything that has to hold before a change lands, in one run.
//!
//! Every step runs even if an earlier one failed, so that one run tells all there is to mend. The tests come last: the
//! end of the output is their summary, followed by the failed steps, if any.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Error, Result, bail};

use crate::advisories::{self, Checked};
use crate::process::{cargo, root, run as run_command};
use crate::testing::{self, Selection};
use crate::{bench, features, tidy, tools};

pub(crate) fn run() -> Result<()> {
    let tools = tools::all()?;
    let deny = |check: &str| run_command(Command::new(&tools.cargo_deny).current_dir(root()).args(["check", check]));
    let mut steps = Steps::default();

    steps.step("format", || run_command(&mut cargo(["fmt", "--all", "--", "--check"])));
    steps.step("tidy", tidy::run);
    steps.step("licenses", || deny("licenses"));
    steps.step("bans", || deny("bans"));
    steps.step("sources", || deny("sources"));
    steps.advisories(&tools.cargo_deny);
    steps.step("clippy", || {
        run_command(&mut cargo([
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ]))
    });
    steps.step("features", || features::each(&tools.cargo_hack));
    steps.step("lean build", features::watched_build);
    steps.step("documentation", || {
        let mut doc = cargo([
            "doc",
            // The facade and the binary have one name, and so would their pages.
            "--lib",
            "--locked",
            "--no-deps",
            "--workspace",
            "--all-features",
        ]);
        run_command(doc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    // After all builds and before the tests, when nothing else keeps the machine busy.
    steps.step("speed", bench::gate);
    // Not a step: nothing but failures may follow the runner's summary.
    println!("\n=== test");
    if let Err(error) = testing::run(&Selection::default()) {
        steps.fail("test", &error);
    }
    steps.finish()
}

#[derive(Default)]
struct Steps {
    failed: Vec<&'static str>,
}

impl Steps {
    fn step(&mut self, name: &'static str, run: impl FnOnce() -> Result<()>) {
        println!("\n=== {name}");
        let begin = Instant::now();
        match run() {
            Ok(()) => println!("=== {name}: ok ({:.1} s)", begin.elapsed().as_secs_f64()),
            Err(error) => self.fail(name, &error),
        }
    }

    /// The one step that may be skipped, but not quietly.
    fn advisories(&mut self, cargo_deny: &Path) {
        println!("\n=== advisories");
        match advisories::check(cargo_deny) {
            Ok(Checked::Clean) => println!("=== advisories: ok"),
            Ok(Checked::Skipped(reason)) => {
                println!("!!! SECURITY ADVISORIES WERE NOT CHECKED: no database was given, and none could be fetched");
                println!("!!! set NAQ_ADVISORY_DB to a folder that holds one");
                println!("=== advisories: SKIPPED: {reason}");
            }
            Err(error) => self.fail("advisories", &error),
        }
    }

    fn fail(&mut self, name: &'static str, error: &Error) {
        self.failed.push(name);
        println!("=== {name}: FAILED: {error:#}");
    }

    fn finish(self) -> Result<()> {
        if !self.failed.is_empty() {
            bail!("failed: {}", self.failed.join(", "));
        }
        Ok(())
    }
}
