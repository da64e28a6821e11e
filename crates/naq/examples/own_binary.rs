//! A program of your own with every command of `naq`, and your handlers and what they share compiled in.
//!
//! Run it, with one file as the store of both commands:
//! ```text
//! export NAQ_URL=sqlite:/tmp/own_binary.db
//! cargo run -p naq --example own_binary --all-features -- worker start
//! cargo run -p naq --example own_binary --all-features -- job enqueue greet --args '["Ada"]' --job-id ada --wait
//! ```

use std::process::ExitCode;

use naq::{State, cli::App};

/// Stands for a connection pool.
struct Dictionary {
    greeting: &'static str,
}

#[naq::job(max_retries = 5, timeout = "30s")]
async fn greet(name: String, words: State<Dictionary>) -> String {
    format!("{}, {name}", words.greeting)
}

#[tokio::main]
async fn main() -> ExitCode {
    // With nothing to share: `naq::cli::run().await`.
    App::new().state(Dictionary { greeting: "hello" }).run().await
}

// Prints:
// "hello, Ada"
