//! Jobs that run later: after a delay, at a time, and at another time than first said.
//!
//! Run it: `cargo run -p naq --example delayed --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{sync::Arc, time::Duration};

use naq::{ServiceManager, Worker, secs};

#[naq::job]
async fn remind(of: String) {
    println!("do not forget: {of}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://delayed".parse()?);
    naq::install(services.clone()).await?;
    let worker = Worker::of(&services).await?.registered_handlers().concurrency(1).build()?;
    worker.run_until(remind_all(&services)).await?.0
}

async fn remind_all(services: &ServiceManager) -> anyhow::Result<()> {
    // Due times go by the store's clock, so it does not matter if that of this host is wrong.
    let now = services.storage().await?.now().await?;
    let dinner = naq::enqueue_in(Duration::from_millis(200), remind::job("dinner")).await?;
    let tea = naq::enqueue_at(now.saturating_add(Duration::from_millis(100)), remind::job("tea")).await?;
    let call = naq::enqueue(remind::job("the call").delay(secs(3600))).await?;
    println!("the call is {}", call.status().await?.status);

    tea.result().await?;
    dinner.result().await?;

    // The call was to be in an hour; it is moved up.
    services.jobs().await?.reschedule(call.id(), now).await?;
    call.result().await?;
    Ok(())
}

// Prints:
// the call is scheduled
// do not forget: tea
// do not forget: dinner
// do not forget: the call
