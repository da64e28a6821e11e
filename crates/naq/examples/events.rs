//! What happens, seen by code of your own, and the history of one job as the store keeps it.
//!
//! Run it: `cargo run -p naq --example events --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use async_trait::async_trait;
use naq::{
    Failure, JobContext, ServiceManager, Shutdown, Worker,
    models::{Event, EventType},
    secs,
    services::EventProcessor,
};

/// Has a thread of its own; however slow it is, no job waits for it.
struct Alarm;

#[async_trait]
impl EventProcessor for Alarm {
    fn name(&self) -> &str {
        "alarm"
    }

    async fn process(&self, events: &[Event]) {
        for event in events.iter().filter(|event| event.event_type == EventType::Failed) {
            let job = event.job_id.as_ref().map(|id| id.as_str()).unwrap_or_default();
            println!("alarm: {job} failed: {}", event.details.message.as_deref().unwrap_or_default());
        }
    }
}

#[naq::job(max_retries = 1, retry_delay = 0)]
async fn backup(cx: JobContext) -> Result<(), Failure> {
    Err(Failure::new("disk", format!("no space left in attempt {}", cx.attempt())))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://events".parse()?);
    naq::install(services.clone()).await?;
    let events = services.events().await?;
    events.register_event_processor(Arc::new(Alarm));

    let job = naq::enqueue(backup::job().job_id("tuesday")).await?;
    let worker = Worker::of(&services).await?.registered_handlers().burst().build()?;
    worker.run(Shutdown::new()).await?;

    // On the command line: `naq events history ID`; `naq events stream` follows all of them.
    events.flush(secs(5)).await;
    let history = events.history(job.id()).await?;
    services.close().await; // waits for the processor
    for event in history {
        println!("{}", event.event_type);
    }
    Ok(())
}

// Prints:
// alarm: tuesday failed: no space left in attempt 2
// enqueued
// started
// retry_scheduled
// started
// failed
// dead_lettered
