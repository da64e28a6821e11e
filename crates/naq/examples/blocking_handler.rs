//! Handlers that compute or block: a plain function runs on the blocking pool, beside the async ones.
//!
//! Run it: `cargo run -p naq --example blocking_handler --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use naq::{NewJob, ServiceManager, Shutdown, Worker};
use serde_json::json;

/// A function that is not `async` never holds up the async ones; the lease goes on while it computes.
#[naq::job(timeout = "10m")]
fn count_primes(below: u32) -> usize {
    (2..below).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0)).count()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://blocking_handler".parse()?);
    naq::install(services.clone()).await?;

    let primes = naq::enqueue(count_primes::job(1_000)).await?;
    let shouted = naq::enqueue(NewJob::<String>::typed("shout", json!(["hello"]))).await?;

    // Without the macro: any function or closure, by the name that its jobs have.
    let shout = |(text,): (String,)| text.to_uppercase();
    let worker = Worker::of(&services).await?.registered_handlers().blocking_handler("shout", shout);
    worker.burst().build()?.run(Shutdown::new()).await?;

    println!("primes below 1000: {}", primes.result().await?);
    println!("{}", shouted.result().await?);
    Ok(())
}

// Prints:
// primes below 1000: 168
// HELLO
