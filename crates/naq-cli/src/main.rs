//! The stock `naq` binary: the library's program, with the built-in handlers only.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    naq_cli::run().await
}
