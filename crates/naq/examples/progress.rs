//! How far a running job is, followed by its producer as the handler says it.
//!
//! Run it: `cargo run -p naq --example progress --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use futures_util::StreamExt as _;
use naq::{JobContext, ServiceManager, Worker};
use tokio::sync::Notify;

/// Stands for the work: here a page takes as long as it takes the producer to see the page before.
static PRINTED: Notify = Notify::const_new();

#[naq::job]
async fn print_book(pages: u32, cx: JobContext) -> u32 {
    for page in 1..=pages {
        // Costs about as much as a lock, so an inner loop may say it; the newest is stored twice a second.
        cx.progress(f64::from(page) / f64::from(pages), format!("page {page}"));
        PRINTED.notified().await;
    }
    pages
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://progress".parse()?);
    naq::install(services.clone()).await?;
    let worker = Worker::of(&services).await?.registered_handlers().build()?;
    worker.run_until(follow()).await?.0
}

async fn follow() -> anyhow::Result<()> {
    let book = naq::enqueue(print_book::job(2)).await?;
    let mut reports = book.progress().await?;
    while let Some(report) = reports.next().await {
        println!("{:.0} %: {}", report.fraction * 100.0, report.message.unwrap_or_default());
        PRINTED.notify_one();
    }
    println!("printed {} pages", book.result().await?);
    Ok(())
}

// Prints:
// 50 %: page 1
// 100 %: page 2
// printed 2 pages
