//! Jobs that wait for other jobs, without occupying a worker: a build that needs what others return.
//!
//! Run it: `cargo run -p naq --example dependencies --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use naq::{JobContext, ResultError, ServiceManager, Worker, secs};

#[naq::job(max_retries = 0)]
async fn count_words(text: String) -> Result<usize, &'static str> {
    if text.is_empty() { Err("there is nothing to count") } else { Ok(text.split_whitespace().count()) }
}

#[naq::job]
async fn sum(cx: JobContext) -> Result<usize, ResultError> {
    let mut sum = 0;
    for part in cx.depends_on() {
        sum += cx.dependency::<usize>(part).await?;
    }
    Ok(sum)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://dependencies".parse()?);
    naq::install(services.clone()).await?;
    let worker = Worker::of(&services).await?.registered_handlers().build()?;
    worker.run_until(count()).await?.0
}

async fn count() -> anyhow::Result<()> {
    // Any number of jobs may be waited for; they may be enqueued before or after the one that waits.
    let total = naq::enqueue(sum::job().depends_on(["intro", "end"])).await?;
    println!("the sum is {}", total.status().await?.status);
    naq::enqueue(count_words::job("once upon a time").job_id("intro")).await?;
    naq::enqueue(count_words::job("the end").job_id("end")).await?;
    println!("words: {}", total.result().await?);

    // What waits for a job that fails is cancelled, and says why; `on_dependency_failure` can let it run instead.
    let broken = naq::enqueue(count_words::job("").job_id("empty")).await?;
    let total = naq::enqueue(sum::job().depends_on([broken.id()])).await?;
    let ended = total.outcome(secs(10)).await?;
    println!("{}: {}", ended.status, ended.error.map(|error| error.message).unwrap_or_default());
    Ok(())
}

// Prints:
// the sum is waiting
// words: 6
// cancelled: job empty, on which it depends, failed
