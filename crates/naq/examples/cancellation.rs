//! Jobs that are cancelled, before they run and while they do. A running handler is told, and stops when it looks.
//!
//! Run it: `cargo run -p naq --example cancellation --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use naq::{CancellationToken, JobContext, ServiceManager, Worker, secs};
use tokio::sync::Notify;

static BEGUN: Notify = Notify::const_new();

/// Waits for two things at once: its work, and being told to stop.
#[naq::job]
async fn download(cx: JobContext) -> Result<(), &'static str> {
    BEGUN.notify_one();
    tokio::select! {
        () = std::future::pending() => Ok(()), // the work
        () = cx.cancelled() => Err("stopped; what was there is removed"),
    }
}

/// Computes without waiting, and looks between two steps.
#[naq::job]
fn search(token: CancellationToken) -> Result<u64, &'static str> {
    BEGUN.notify_one();
    while !token.is_cancelled() {
        std::hint::spin_loop(); // the work
    }
    Err("stopped")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://cancellation".parse()?);
    naq::install(services.clone()).await?;
    let worker = Worker::of(&services).await?.registered_handlers().build()?;

    let (cancelled, _) = worker.run_until(cancel_all()).await?;
    println!("both handlers have stopped"); // or the worker would still wait for them
    cancelled
}

async fn cancel_all() -> anyhow::Result<()> {
    let later = naq::enqueue(download::job().delay(secs(3600))).await?;
    println!("{:?}", later.cancel().await?);

    for job in [download::job().erased(), search::job().erased()] {
        let kind = job.kind().to_owned();
        let job = naq::enqueue(job).await?;
        BEGUN.notified().await;
        println!("{kind}: {:?}", job.cancel().await?);
        // It has ended for everyone who waits, whether or not its handler looks.
        println!("{kind}: {}", job.outcome(secs(10)).await?.status);
    }
    Ok(())
}

// Prints:
// Cancelled { was: Scheduled }
// download: Cancelled { was: Running }
// download: cancelled
// search: Cancelled { was: Running }
// search: cancelled
// both handlers have stopped
