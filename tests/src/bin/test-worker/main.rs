//! A user's own worker binary: every command of `naq`, with the test jobs and what they share compiled in.
//!
//! Invariant: it is what a user would write, and nothing else but [`crash`], which ends this process at a chosen write as
//! `kill -9` would. The jobs are found because they are linked in; only one, which has no attribute, is named here.

use std::process::ExitCode;

use naq::cli::App;

mod crash;
mod jobs;
mod recorded;

#[tokio::main]
async fn main() -> ExitCode {
    crash::arm();
    let code = App::new().state(jobs::Runs::default()).handler("t.run_by_hand", jobs::run_by_hand).run().await;
    crash::report();
    code
}
