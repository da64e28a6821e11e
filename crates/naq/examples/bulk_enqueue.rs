//! Many jobs at once: stored in batches, with one answer for each.
//!
//! Run it: `cargo run -p naq --example bulk_enqueue --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use naq::{ServiceManager, Shutdown, Worker, secs};

static LAST_PAGE: AtomicU32 = AtomicU32::new(0);

/// Nobody waits for its result, so none is kept: that saves a write for each job.
#[naq::job(queue = "index", result_ttl = 0)]
async fn index_page(number: u32) {
    LAST_PAGE.fetch_max(number, Ordering::Relaxed);
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://bulk_enqueue".parse()?);
    naq::install(services.clone()).await?;

    let mut pages: Vec<_> = (0..500).map(index_page::job).collect();
    pages.push(index_page::job(500).timeout(secs(0)));

    let answers = naq::enqueue_many(pages).await?;
    let stored = answers.iter().flatten().count();
    println!("{stored} stored");
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        println!("one refused: {:?}", refused.kind());
    }

    let worker = Worker::of(&services).await?.queue("index").registered_handlers();
    let report = worker.burst().build()?.run(Shutdown::new()).await?;
    println!("{} completed, the last one was page {LAST_PAGE:?}", report.completed);
    Ok(())
}

// Prints:
// 500 stored
// one refused: Job(InvalidJob)
// 500 completed, the last one was page 499
