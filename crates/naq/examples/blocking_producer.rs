//! A producer without async: each free function has a twin that ends in `_sync` and may be called on any thread.
//!
//! Run it: `cargo run -p naq --example blocking_producer --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{sync::Arc, thread};

use naq::{ServiceManager, Shutdown, Worker, queue::ResultState, secs};

#[naq::job]
fn word_count(text: String) -> usize {
    text.split_whitespace().count()
}

fn main() -> anyhow::Result<()> {
    naq::connect_sync("memory://blocking_producer")?;

    let job = naq::enqueue_sync(word_count::job("three short words"))?;
    if let ResultState::Unfinished(job) = naq::fetch_job_result_sync(job.id().as_str())? {
        println!("the job is {}", job.status);
    }

    let worker = thread::spawn(work);
    println!("words: {}", naq::wait_for_result_sync(&job, secs(10))??);

    naq::disconnect_sync()?;
    worker.join().expect("the worker does not panic")
}

/// In production this is another process, for example that of `own_binary`.
fn work() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let services = ServiceManager::new(Arc::default(), "memory://blocking_producer".parse()?);
        let worker = Worker::of(&services).await?.registered_handlers().burst().build()?;
        worker.run(Shutdown::new()).await?;
        Ok(())
    })
}

// Prints:
// the job is pending
// words: 3
