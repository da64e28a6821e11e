//! Jobs of which there is only one at a time: the job that is there answers, is replaced, or is an error.
//!
//! Run it: `cargo run -p naq --example unique --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use naq::{JobServiceErrorKind, OnConflict, QueueErrorKind, secs};

/// One for each user: until it has ended, the same user's next one is not stored.
#[naq::job(unique = ["user"])]
async fn sync_mailbox(user: String, reason: String) -> String {
    format!("{user}: {reason}")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    naq::connect("memory://unique").await?;

    let first = naq::enqueue(sync_mailbox::job("ada", "login")).await?;
    let second = naq::enqueue(sync_mailbox::job("ada", "new mail")).await?;
    println!("the same job: {}", second.id() == first.id());
    println!("a duplicate: {}", second.receipt().is_some_and(|receipt| receipt.duplicate));

    let other = naq::enqueue(sync_mailbox::job("bob", "login")).await?;
    println!("another user, another job: {}", other.id() != first.id());

    // The newest order counts: what has not started yet makes room.
    let newest = naq::enqueue(sync_mailbox::job("ada", "moved").on_conflict(OnConflict::Replace)).await?;
    println!("the first is {}, the newest {}", first.status().await?.status, newest.status().await?.status);

    // A key of your own, for a time and whatever becomes of the job, and an error for who comes second.
    let welcome = || sync_mailbox::job("eve", "welcome").unique("welcome-eve").unique_ttl(secs(3600));
    naq::enqueue(welcome()).await?;
    let refused = naq::enqueue(welcome().on_conflict(OnConflict::Error)).await.map_err(|error| error.kind());
    println!("refused: {}", matches!(refused, Err(QueueErrorKind::Job(JobServiceErrorKind::KeyTaken))));
    Ok(())
}

// Prints:
// the same job: true
// a duplicate: true
// another user, another job: true
// the first is cancelled, the newest pending
// refused: true
