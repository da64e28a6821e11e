//! A handler decides what becomes of its job: done, later again, retried after a time, failed for good, cancelled.
//!
//! Run it: `cargo run -p naq --example outcomes --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{sync::Arc, time::Duration};

use naq::{Failure, JobContext, Outcome, ServiceManager, Worker, secs};

const SOON: Duration = Duration::from_millis(20);

#[naq::job]
async fn charge(order: String, cx: JobContext) -> Outcome<String> {
    let is_first_run = cx.job().run == 1;
    match order.as_str() {
        // Not ready yet; this counts as no attempt.
        "unpacked" if is_first_run => Outcome::Snooze(SOON),
        // Counts as an attempt, but the other side said how long to wait.
        "busy" if is_first_run => Outcome::retry_after(SOON, Failure::new("rate_limit", "come back later")),
        "stolen card" => Outcome::fail(Failure::new("declined", "the bank declined the card")),
        "returned" => Outcome::cancel("the order was returned"),
        _ => Outcome::Complete(format!("charged in attempt {}, run {}", cx.attempt(), cx.job().run)),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://outcomes".parse()?);
    naq::install(services.clone()).await?;
    let worker = Worker::of(&services).await?.registered_handlers().build()?;
    worker.run_until(charge_all()).await?.0
}

async fn charge_all() -> anyhow::Result<()> {
    for order in ["packed", "unpacked", "busy", "stolen card", "returned"] {
        let ended = naq::enqueue(charge::job(order)).await?.outcome(secs(10)).await?;
        match (ended.result, ended.error) {
            (Some(value), _) => println!("{order}: {} {value}", ended.status),
            (None, Some(error)) => println!("{order}: {} {}", ended.status, error.message),
            (None, None) => println!("{order}: {}", ended.status),
        }
    }
    Ok(())
}

// Prints:
// packed: completed "charged in attempt 1, run 1"
// unpacked: completed "charged in attempt 1, run 3"
// busy: completed "charged in attempt 2, run 3"
// stolen card: failed the bank declined the card
// returned: cancelled the order was returned
