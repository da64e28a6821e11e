//! What a handler logs carries its job: here JSON lines in a file, as a collector reads them.
//!
//! Run it: `cargo run -p naq --example logging --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{fs, sync::Arc};

use naq::{
    Failure, JobContext, ServiceManager, Shutdown, Worker,
    config::{LogMode, LoggingConfig},
    logging,
};
use serde_json::Value;

#[naq::job]
async fn bill(order: u32, cx: JobContext) -> Result<(), Failure> {
    tracing::info!(order, "writes the bill");
    cx.enqueue(pack::job(order).job_id("pack-7")).await?;
    Ok(())
}

#[naq::job]
fn pack(order: u32) {
    tracing::info!(order, "packs the order");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("naq.log");
    // Without a file the lines go to stderr; in mode `dev` they are text. Your own subscriber takes `logging::layer`.
    let config = LoggingConfig { mode: LogMode::Prod, file: Some(file.clone()), ..LoggingConfig::default() };
    let guard = logging::configure(&config)?;

    let services = ServiceManager::new(Arc::default(), "memory://logging".parse()?);
    naq::install(services.clone()).await?;
    naq::enqueue(bill::job(7).job_id("bill-7").meta("correlation_id", "order-7")).await?;
    let worker = Worker::of(&services).await?.registered_handlers().concurrency(1).burst();
    worker.build()?.run(Shutdown::new()).await?;

    drop(guard); // writes what is buffered
    for line in fs::read_to_string(&file)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        if line["order"] == 7 {
            let [message, job, correlation] = ["message", "task_id", "correlation_id"].map(|field| &line[field]);
            println!("{message}: job {job}, correlation {correlation}");
        }
    }
    Ok(())
}

// Prints:
// "writes the bill": job "bill-7", correlation "order-7"
// "packs the order": job "pack-7", correlation "order-7"
