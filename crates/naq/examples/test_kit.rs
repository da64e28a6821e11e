//! How an application's own tests run its jobs: a store in memory, with a clock that the test moves.
//!
//! In a test the lines of `main` stand in a `#[tokio::test]`, with `naq` with feature `testing` in `[dev-dependencies]`.
//!
//! Run it: `cargo run -p naq --example test_kit --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use naq::{
    Failure, JobContext, QueueError, secs,
    testing::{TestStore, assert_enqueued, refute_enqueued},
};
use serde_json::json;

const DAY: u64 = 24 * 3600;

/// What the application does when somebody signs up.
async fn sign_up(address: &str) -> Result<(), QueueError> {
    naq::enqueue(send_mail::job(address, "welcome")).await?;
    naq::enqueue(send_mail::job(address, "how do you like it?").delay(secs(3 * DAY))).await?;
    Ok(())
}

#[naq::job(queue = "mail", retry_delay = "1m")]
async fn send_mail(to: String, subject: String, cx: JobContext) -> Result<(), Failure> {
    println!("{subject} (to {to}, attempt {})", cx.attempt());
    if cx.attempt() == 1 { Err(Failure::new("busy", "the server is busy")) } else { Ok(()) }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let store = TestStore::memory().await?;
    store.install().await?; // `naq::enqueue` goes there now

    sign_up("a@b.c").await?;
    assert_enqueued!(store, "send_mail", queue = "mail", args = json!({"subject": "welcome"}));
    refute_enqueued!(store, "send_mail", args = json!({"to": "somebody else"}));

    // What is due now runs, by the worker of production; what failed waits for its next attempt.
    let counts = store.drain(|worker| worker.registered_handlers()).await?;
    println!("at once: {} retried, {} completed", counts.retried, counts.completed);

    // Four days pass without a sleep; each delay and each retry runs at its own time.
    let counts = store.drain_for(secs(4 * DAY), |worker| worker.registered_handlers()).await?;
    println!("in four days: {} retried, {} completed", counts.retried, counts.completed);
    println!("left: {}", store.enqueued().await.len());
    Ok(())
}

// Prints:
// welcome (to a@b.c, attempt 1)
// at once: 1 retried, 0 completed
// welcome (to a@b.c, attempt 2)
// how do you like it? (to a@b.c, attempt 1)
// how do you like it? (to a@b.c, attempt 2)
// in four days: 1 retried, 2 completed
// left: 0
