//! Numbers for Prometheus from a program that runs a worker by itself.
//!
//! Run it: `cargo run -p naq --example metrics --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use naq::{Failure, ServiceManager, Shutdown, Worker, metrics::Metrics};

#[naq::job(max_retries = 0)]
async fn resize(width: u32) -> Result<u32, Failure> {
    if width == 0 { Err(Failure::new("size", "nothing is left")) } else { Ok(width) }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let services = ServiceManager::new(Arc::default(), "memory://metrics".parse()?);
    naq::install(services.clone()).await?;
    let metrics = Metrics::new();
    services.events().await?.hook().add(Arc::new(metrics.clone()));

    for width in [0, 64, 128] {
        naq::enqueue(resize::job(width)).await?;
    }
    let worker = Worker::of(&services).await?.registered_handlers().burst().build()?;
    worker.run(Shutdown::new()).await?;

    // `naq::http::Server` answers /metrics with this text; `metrics.collector()` joins a registry of your own.
    for line in metrics.encode().lines().filter(|line| line.starts_with("naq_jobs_")) {
        println!("{line}");
    }
    Ok(())
}

// Prints:
// naq_jobs_enqueued_total{queue="default",kind="resize"} 3
// naq_jobs_started_total{queue="default",kind="resize"} 3
// naq_jobs_ended_total{queue="default",kind="resize",outcome="completed"} 2
// naq_jobs_ended_total{queue="default",kind="resize",outcome="failed"} 1
// naq_jobs_ended_total{queue="default",kind="resize",outcome="cancelled"} 0
// naq_jobs_ended_total{queue="default",kind="resize",outcome="retried"} 0
// naq_jobs_ended_total{queue="default",kind="resize",outcome="snoozed"} 0
