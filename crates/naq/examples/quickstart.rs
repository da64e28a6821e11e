//! The smallest whole program: a function becomes a job, a worker runs it, and its producer gets the result.
//!
//! Run it: `cargo run -p naq --example quickstart --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use naq::{ServiceManager, Shutdown, Worker};

#[naq::job]
async fn add(a: u32, b: u32) -> u32 {
    a + b
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // `sqlite:jobs.db` keeps jobs in a file, `nats://127.0.0.1:4222` in a cluster; nothing else changes.
    let services = ServiceManager::new(Arc::default(), "memory://quickstart".parse()?);
    naq::install(services.clone()).await?;

    let sum = naq::enqueue(add::job(2, 3)).await?; // stored; it may run in another process, days later
    println!("enqueued: {}", sum.status().await?.status);

    // A burst ends when nothing is left to do; without it a worker runs until it is asked to stop.
    let worker = Worker::of(&services).await?.registered_handlers().burst().build()?;
    let report = worker.run(Shutdown::new()).await?;

    println!("the worker ran {} job", report.completed);
    println!("2 + 3 = {}", sum.result().await?);
    Ok(())
}

// Prints:
// enqueued: pending
// the worker ran 1 job
// 2 + 3 = 5
