//! A user's own worker binary: every command of `naq`, with the test jobs compiled in.
//!
//! Invariant: it is what a user would write, and nothing else but [`crash`], which ends this process at a chosen write as
//! `kill -9` would. The jobs are found because they are linked in; nothing here names them.

use std::process::ExitCode;

mod crash;
mod jobs;

#[tokio::main]
async fn main() -> ExitCode {
    crash::arm();
    let code = naq::cli::run().await;
    crash::report();
    code
}
