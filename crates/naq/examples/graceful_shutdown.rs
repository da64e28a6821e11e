//! A deploy: what runs may end, what does not end in time is handed back, and no attempt is counted for it.
//!
//! Run it: `cargo run -p naq --example graceful_shutdown --all-features`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{sync::Arc, time::Duration};

use naq::{JobContext, NaqConfig, ServiceManager, Shutdown, State, Worker, worker::signals};
use tokio::sync::Semaphore;

static RUNNING: Semaphore = Semaphore::const_new(0);

#[naq::job]
async fn short(shutdown: State<Shutdown>) -> String {
    RUNNING.add_permits(1);
    shutdown.requested().await;
    "ended after the request to stop".into()
}

#[naq::job]
async fn long(cx: JobContext) -> Result<(), &'static str> {
    RUNNING.add_permits(1);
    cx.cancelled().await; // time to save how far it is
    Err("stopped; because the worker stops, this is no failure")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut config = NaqConfig::default();
    config.workers.shutdown_timeout = Duration::from_millis(100); // `workers.shutdown_timeout` in `naq.yaml`; 30 s if not said
    let services = ServiceManager::new(Arc::new(config), "memory://graceful_shutdown".parse()?);
    naq::install(services.clone()).await?;

    // SIGTERM and SIGINT ask to stop; a second one hands everything back at once.
    let shutdown = Shutdown::new();
    let _signals = signals::listen(shutdown.clone())?;

    let worker = Worker::of(&services).await?.registered_handlers().state(shutdown.clone()).build()?;

    let short = naq::enqueue(short::job()).await?;
    let long = naq::enqueue(long::job()).await?;
    let deploy = async {
        let _running = RUNNING.acquire_many(2).await?;
        shutdown.request(); // what the signal does
        anyhow::Ok(())
    };
    let (report, deployed) = tokio::join!(worker.run(shutdown.clone()), deploy);
    deployed?;

    let report = report?;
    println!("completed: {}, handed back: {}", report.completed, report.handed_back);
    println!("short: {}", short.result().await?);
    let long = long.status().await?;
    println!("long: {}, attempt {}", long.status, long.attempt);
    Ok(())
}

// Prints:
// completed: 1, handed back: 1
// short: ended after the request to stop
// long: pending, attempt 1
