//! A handler that enqueues jobs: many small ones, and one that waits for all of them.
//!
//! Run it: `cargo run -p naq --example child_jobs --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use naq::{Failure, JobContext, ResultError, ServiceManager, Worker, secs};

#[naq::job]
async fn import(files: Vec<String>, cx: JobContext) -> Result<String, Failure> {
    // An attempt after a crash enqueues again. With ids of their own the children are there only once.
    let id = |name: &str| format!("{}-{name}", cx.id());
    for file in &files {
        cx.enqueue(import_file::job(file.clone()).job_id(id(file))).await?;
    }
    let summary = summarize::job().depends_on(files.iter().map(|file| id(file))).job_id(id("summary"));
    Ok(cx.enqueue(summary).await?.id().to_string())
}

#[naq::job]
async fn import_file(file: String, cx: JobContext) -> String {
    let parent = cx.meta("parent_id").and_then(|id| id.to::<String>().ok()).unwrap_or_default();
    format!("{file} of {parent}")
}

#[naq::job]
async fn summarize(cx: JobContext) -> Result<Vec<String>, ResultError> {
    let mut imported = Vec::new();
    for child in cx.depends_on() {
        imported.push(cx.dependency(child).await?);
    }
    Ok(imported)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://child_jobs".parse()?);
    naq::install(services.clone()).await?;
    let worker = Worker::of(&services).await?.registered_handlers().build()?;
    worker.run_until(import_all(&services)).await?.0
}

async fn import_all(services: &ServiceManager) -> anyhow::Result<()> {
    let files = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let summary = naq::enqueue(import::job(files).job_id("monday")).await?.result().await?;
    println!("the summary will be {summary}");
    let ended = services.jobs().await?.wait_for(&summary.parse()?, secs(10)).await?;
    println!("{}", ended.result.unwrap_or_default());
    Ok(())
}

// Prints:
// the summary will be monday-summary
// ["a of monday","b of monday","c of monday"]
