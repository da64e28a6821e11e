//! Project tasks that cargo cannot say by itself: `cargo xtask --help` lists them.
//!
//! Every task works from a fresh clone, never asks a question, and exits non-zero if anything it was asked to prove
//! is not so. It does not replace cargo: building and running one test is `cargo build` and `cargo test`.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a terminal program: printing is what it is for")]

mod advisories;
mod bench;
mod chaos;
mod ci;
mod features;
mod fuzz;
mod process;
mod testing;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Project tasks of naq")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or fetch what the tests and checks need, into .tools/
    Tools,
    /// Run every test of the workspace against every store
    Test(testing::Selection),
    /// Check the house rules: headers, sizes, names, crate arrows
    Tidy,
    /// Every feature of every crate by itself, and what a program that only enqueues has to build
    Features,
    /// Measure naq against bare loops over the raw clients
    Bench(bench::Options),
    /// Load a store while everything breaks at random, and judge what happened
    Chaos(chaos::Options),
    /// Make inputs for what reads bytes from outside, and keep those that break a promise
    Fuzz(fuzz::Options),
    /// Everything that has to hold before a change lands
    Ci,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Tools => {
            for (name, path) in tools::all()?.named() {
                println!("{name:<18} {}", path.display());
            }
            Ok(())
        }
        Task::Test(selection) => testing::run(&selection),
        Task::Tidy => tidy::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Chaos(options) => chaos::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Features => features::run(),
        Task::Ci => ci::run(),
    }
}
