//! What runs first: the more urgent job of a queue, and the queue that the worker was given first.
//!
//! Run it: `cargo run -p naq --example priorities --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use naq::{ServiceManager, Shutdown, Worker};

/// 0 is the most urgent, 2 the default, 3 the last.
#[naq::job(queue = "mail", priority = 1)]
async fn send(what: String) {
    println!("{what}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://priorities".parse()?);
    naq::install(services.clone()).await?;

    naq::enqueue(send::job("5. statistics").queue("background").priority(0)).await?;
    naq::enqueue(send::job("4. newsletter").priority(3)).await?;
    naq::enqueue(send::job("2. receipt")).await?;
    naq::enqueue(send::job("3. receipt")).await?;
    naq::enqueue(send::job("1. password reset").priority(0)).await?;

    // In this order: `background` runs when `mail` is empty. With weights (`mail:3`, `background:1`) they take turns.
    let worker = Worker::of(&services).await?.queue("mail").queue("background").concurrency(1);
    worker.registered_handlers().burst().build()?.run(Shutdown::new()).await?;
    Ok(())
}

// Prints:
// 1. password reset
// 2. receipt
// 3. receipt
// 4. newsletter
// 5. statistics
