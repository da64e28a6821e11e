//! A program of your own with every command of `naq`, and your handlers compiled in.
//!
//! Run it, with one file as the store of both commands:
//! ```text
//! export NAQ_URL=sqlite:/tmp/own_binary.db
//! cargo run -p naq --example own_binary --all-features -- worker start
//! cargo run -p naq --example own_binary --all-features -- job enqueue greet --args '["Ada"]' --job-id ada --wait
//! ```

use std::process::ExitCode;

#[naq::job(max_retries = 5, timeout = "30s")]
async fn greet(name: String) -> String {
    format!("hello, {name}")
}

#[tokio::main]
async fn main() -> ExitCode {
    naq::cli::run().await
}

// Prints:
// "hello, Ada"
