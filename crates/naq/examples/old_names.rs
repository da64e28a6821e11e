//! The names and module paths of NAQ: second names of the same types, so that old and new code go together.
//!
//! `docs/migrating/from-python-naq-and-omniq.md` has all of them, with what new code should use.
//!
//! Run it: `cargo run -p naq --example old_names --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use naq::{
    exceptions::NaqException,
    models::{enums::JOB_STATUS, jobs},
    queue::core::Queue,
    results::{ResultState, fetch_job_result},
    services::base::ServiceManager,
    worker::core::Worker,
};
use serde_json::json;

async fn send_mail((to,): (String,)) -> Result<usize, NaqException> {
    if to.contains('@') { Ok(to.len()) } else { Err(NaqException::new("address", "there is no @ in it")) }
}

/// New code: it takes what the old names give.
fn say(status: naq::JobStatus, result: &naq::JobResult) {
    let value = result.result.as_ref().map_or("nothing", |value| value.get());
    println!("{status}: {value}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://old_names".parse()?);
    naq::install(services.clone()).await?;

    let queue = Queue::open("mail").await?;
    let job = queue.enqueue(naq::NewJob::new("send_mail", json!(["a@b.c"]))).await?;
    println!("pending: {}", job.status().await?.status == JOB_STATUS::Pending);

    let worker = Worker::of(&services).await?.queue("mail").handler("send_mail", send_mail).burst().build()?;
    worker.run(naq::Shutdown::new()).await?;

    if let ResultState::Ended(result) = fetch_job_result(job.id().as_str()).await? {
        let result: jobs::JobResult = *result;
        say(JOB_STATUS::Completed, &result);
    }
    Ok(())
}

// Prints:
// pending: true
// completed: 5
